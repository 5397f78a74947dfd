"""Events for open pages: by the stream while it is open, and by replay or polling for what a page missed."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, current_app
from flask.testing import FlaskClient

from microblog.accounts import deletion
from microblog.accounts.models import User
from microblog.accounts.services import replace_password
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.jobs.models import find_job
from microblog.jobs.services import cancel_job
from microblog.messages.services import send_message
from microblog.notifications import pubsub
from microblog.notifications.pubsub import BACKLOG, CHANNEL, END, RESYNC, Hub, Subscription, user_topic
from microblog.notifications.routes import OVERLAP
from microblog.taskqueue.launch import launch_task
from tests.support.clients import signed_in_client
from tests.support.servers import TIMEOUT, RedisServer, wait_for

LIFETIME = 600.0  # seconds, longer than a test may take: a stream must end for another reason


class Stream:
    """The event stream of an open page, read in a thread, as a browser does, until the page is closed."""

    pages_open = True

    def __init__(self, client: FlaskClient, path: str = "/notifications/stream", **headers: str) -> None:
        self.response = client.get(path, headers=headers, buffered=False)
        self.frames: list[str] = []
        self.ended = False
        self._iterator: Iterator[Any] = iter(self.response.response)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for chunk in self._iterator:
            self.frames.append(chunk.decode() if isinstance(chunk, bytes) else chunk)
            if not Stream.pages_open:
                break
        self.response.close()
        self.ended = True

    def events(self) -> list[dict[str, Any]]:
        data = [line for frame in self.frames for line in frame.splitlines() if line.startswith("data: ")]
        return [event for event in map(json.loads, (line[6:] for line in data)) if event["name"] != "resync"]

    def ids(self) -> list[str]:
        return [line[4:] for frame in self.frames for line in frame.splitlines() if line.startswith("id: ")]


@pytest.fixture
def streaming(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """An app whose streams, and the threads that read them, end with the test."""
    app.config.update(STREAM_HEARTBEAT=0.2, STREAM_LIFETIME=LIFETIME)
    yield app
    hub: Hub = app.extensions["hub"]
    with monkeypatch.context() as patch:
        patch.setattr(Stream, "pages_open", False)
        wait_for(lambda: hub.open_streams() == 0, what="every page is closed")


def subscriptions(redis_server: RedisServer) -> int:
    """Return the number of connections that are subscribed to the channel."""
    return int(redis_server.client.pubsub_numsub(redis_server.key(CHANNEL))[0][1])


def wake_all(redis_server: RedisServer) -> int:
    """Make each hub check now whether it has subscribers. Return the number of connections that got the message."""
    return int(redis_server.client.publish(redis_server.key(CHANNEL), '{"topics": [], "event": {}}'))


def test_task_event_reaches_pages_of_its_user_only(streaming: Flask, make_user: Callable[..., User]) -> None:
    susan, ben = make_user("susan"), make_user("ben")
    with streaming.app_context():
        pages = [Stream(signed_in_client(streaming, susan)) for _ in range(2)]
        ben_stream = Stream(signed_in_client(streaming, ben))
        wait_for(lambda: "resync" in "".join(pages[0].frames), what="the process is subscribed")

        task = susan.launch_task("noop", "Nothing")
        db.session.commit()

        for page in pages:
            wait_for(page.events, what="the event arrives")
            assert page.events()[0]["subject"] == task.id
            assert page.events()[0]["data"]["state"] == "PENDING"
        ben_task = ben.launch_task("noop", "Nothing")
        db.session.commit()
        wait_for(ben_stream.events, what="Ben's own event, which follows Susan's")
        assert {event["subject"] for event in ben_stream.events()} == {ben_task.id}


def test_operator_stream_has_tasks_of_all_users(
    streaming: Flask, make_user: Callable[..., User], redis_server: RedisServer
) -> None:
    susan, ben, olga = make_user("susan"), make_user("ben"), make_user("olga")
    olga.is_operator = True
    db.session.commit()
    with streaming.app_context():
        olga_browser, ben_browser = signed_in_client(streaming, olga), signed_in_client(streaming, ben)
        admin, personal, ben_stream = Stream(olga_browser, "/admin/stream"), Stream(olga_browser), Stream(ben_browser)
        wait_for(lambda: any("resync" in frame for frame in admin.frames), what="the process is subscribed")
        wait_for(lambda: wake_all(redis_server) == 1, what="only the subscription of this app is left")

        susan_task = susan.launch_task("noop", "Nothing")
        ben_task = ben.launch_task("noop", "Nothing")
        system_task = launch_task("noop", "Nothing", user_id=None)
        db.session.commit()

        wait_for(lambda: len(admin.events()) == 3 and ben_stream.events(), what="the events arrive")
        subjects = [event["subject"] for event in admin.events()]
        assert sorted(subjects) == sorted([susan_task.id, ben_task.id, system_task.id])
        assert [event["subject"] for event in ben_stream.events()] == [ben_task.id]
        assert personal.events() == []


def test_operator_stream_requires_operator(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    assert signed_in(susan).get("/admin/stream").status_code == 404


@pytest.mark.both_databases
def test_stream_replays_missed_events(streaming: Flask, make_user: Callable[..., User]) -> None:
    susan = make_user("susan")
    with streaming.app_context():
        start = utcnow().timestamp()
        task = susan.launch_task("noop", "Nothing")
        db.session.commit()

        stream = Stream(signed_in_client(streaming, susan), **{"Last-Event-ID": f"{start:.6f}"})

        wait_for(stream.events, what="the replay")
        assert [event["subject"] for event in stream.events()] == [task.id]
        resume_at = float(stream.ids()[0]) + OVERLAP
        later = Stream(signed_in_client(streaming, susan), **{"Last-Event-ID": f"{resume_at:.6f}"})
        wait_for(lambda: later.frames[1:], what="a heartbeat")
        assert later.events() == []


def test_idle_stream_sends_heartbeats(streaming: Flask, make_user: Callable[..., User]) -> None:
    stream = Stream(signed_in_client(streaming, make_user("susan")))

    wait_for(lambda: ": heartbeat\n\n" in stream.frames)


def test_stream_ends_after_its_lifetime(app: Flask, susan: User) -> None:
    app.config.update(STREAM_HEARTBEAT=0.05, STREAM_LIFETIME=0.2)
    hub: Hub = app.extensions["hub"]
    response = signed_in_client(app, susan).get("/notifications/stream", buffered=False)
    assert hub.open_streams() == 1

    list(response.response)
    response.close()

    assert hub.open_streams() == 0


def new_password(susan: User) -> None:
    assert replace_password(susan, "another-secret")


def closed_account(susan: User) -> None:
    assert deletion.close_account(susan)


def demoted(susan: User) -> None:
    susan.is_operator = True
    db.session.commit()
    result = current_app.test_cli_runner().invoke(args=["users", "demote", susan.username])
    assert result.exit_code == 0, result.output


def signed_out(susan: User) -> None:
    assert signed_in_client(current_app, susan).post("/auth/logout").status_code == 302


@pytest.mark.parametrize("event", [new_password, closed_account, demoted, signed_out])
def test_stream_ends_when_access_is_revoked(
    streaming: Flask, make_user: Callable[..., User], event: Callable[[User], None]
) -> None:
    with streaming.app_context():
        susan, ben = make_user("susan"), make_user("ben")
        susan_stream, ben_stream = Stream(signed_in_client(streaming, susan)), Stream(signed_in_client(streaming, ben))
        wait_for(lambda: "resync" in "".join(susan_stream.frames), what="the process is subscribed")

        event(susan)

        wait_for(lambda: susan_stream.ended, what="Susan's stream ends")
        assert "end" not in [received["name"] for received in susan_stream.events()]
        assert not ben_stream.ended
        ben.launch_task("noop", "Nothing")
        db.session.commit()
        wait_for(ben_stream.events, what="Ben's stream continues")


def test_full_backlog_does_not_prevent_stream_end(app: Flask) -> None:
    hub: Hub = app.extensions["hub"]
    subscription = Subscription(hub, frozenset())

    subscription.put(END)
    for number in range(2 * BACKLOG):
        subscription.put({"name": "task", "subject": str(number)})

    assert list(subscription.read(heartbeat=0.01, lifetime=60.0)) == []


def test_poll_excludes_events_of_other_users(
    susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    susan.launch_task("noop", "Nothing")
    db.session.commit()

    assert signed_in(make_user("ben")).get("/notifications?since=0").get_json() == []


@pytest.mark.both_databases
def test_poll_returns_task_events(app: Flask, susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    client = signed_in(susan)
    start = utcnow().timestamp()
    task = susan.launch_task("noop", "Nothing")
    db.session.commit()

    [event] = client.get(f"/notifications?since={start}").get_json()
    assert (event["name"], event["subject"]) == ("task", task.id)
    assert event["data"]["progress"] == {"current": 0, "total": None, "percent": 0, "message": ""}
    assert client.get(f"/notifications?since={event['timestamp']}").get_json() == []

    job = find_job(task.id)
    assert job is not None
    cancel_job(job)
    [cancelled] = client.get(f"/notifications?since={event['timestamp']}").get_json()
    assert cancelled["data"]["state"] == "REVOKED"


def test_poll_returns_changed_unread_counts(susan: User, ben: User, signed_in: Callable[..., FlaskClient]) -> None:
    send_message(ben, susan, "Hello")
    client, now = signed_in(susan), utcnow().timestamp() + 60

    def changed(shown: str) -> list[tuple[str, int]]:
        events = client.get(f"/notifications?since={now}{shown}").get_json()
        return sorted((event["subject"], event["data"]["count"]) for event in events)

    assert changed("") == changed("&unread-messages=1") == changed("&unread-messages=1&unread-notifications=1") == []
    assert changed("&unread-messages=0&unread-notifications=1") == [("messages", 1)]
    assert changed("&unread-messages=x&unread-notifications=") == [("messages", 1), ("notifications", 1)]


@pytest.mark.parametrize("since", ["yesterday", "nan", "inf", "-inf", "1e300", ""])
def test_invalid_since_is_refused(susan: User, signed_in: Callable[..., FlaskClient], since: str) -> None:
    client = signed_in(susan)

    for path in ("/notifications", "/notifications/stream"):
        response = client.get(path, query_string={"since": since})
        assert response.status_code == 400
        assert "must be a time" in response.text


def test_stream_requires_sign_in(client: FlaskClient) -> None:
    assert client.get("/notifications/stream").status_code in (302, 401)
    assert client.get("/notifications").status_code in (302, 401)


def test_process_shares_one_redis_subscription(
    app: Flask, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for(lambda: wake_all(redis_server) == 0, what="the hubs of other tests have ended")
    monkeypatch.setattr(pubsub, "POLL_INTERVAL", 0.1)
    hub: Hub = app.extensions["hub"]
    pages = [hub.subscribe([user_topic(user_id)]) for user_id in range(100)]
    wait_for(lambda: subscriptions(redis_server))

    assert subscriptions(redis_server) == 1
    for page in pages:
        page.close()
    wait_for(lambda: subscriptions(redis_server) == 0, what="a hub without subscribers ends")
    assert hub.open_streams() == 0


def test_malformed_pubsub_message_is_ignored(app: Flask, redis_server: RedisServer) -> None:
    hub: Hub = app.extensions["hub"]
    page = hub.subscribe(["somebody"])
    events = page.read(heartbeat=TIMEOUT, lifetime=LIFETIME)
    assert next(events) == RESYNC

    malformed = ("no json", "[]", "{}", '{"topics": 1, "event": {}}', '{"topics": [[]], "event": {}}')
    for message in (*malformed, '{"topics": ["somebody"], "event": {"name": "task"}}'):
        redis_server.client.publish(redis_server.key(CHANNEL), message)

    assert next(events) == {"name": "task"}
    page.close()


def test_streams_end_after_redis_outage(
    streaming: Flask, make_user: Callable[..., User], redis_server: RedisServer
) -> None:
    with streaming.app_context():
        susan, ben = make_user("susan"), make_user("ben")
        browsers = [signed_in_client(streaming, user) for user in (susan, ben)]
        streams = [Stream(browser) for browser in browsers]
        wait_for(lambda: "resync" in "".join(streams[0].frames), what="the process is subscribed")

        with redis_server.stopped():
            assert replace_password(susan, "another-secret")

        wait_for(lambda: all(stream.ended for stream in streams), what="both streams end")
        assert [browser.get("/notifications").status_code for browser in browsers] == [302, 200]


def test_full_backlog_requests_resync() -> None:
    page = Subscription(hub=None, topics=frozenset())  # type: ignore[arg-type]  # only close() needs the hub
    for number in range(BACKLOG + 1):
        page.put({"name": "task", "number": number})

    assert next(page.read(heartbeat=TIMEOUT, lifetime=LIFETIME)) == RESYNC
