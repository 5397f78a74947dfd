"""What reaches an open page: as it happens, and afterwards for whoever was away."""

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
from microblog.notifications.pubsub import BACKLOG, CHANNEL, END, RESYNC, Hub, Subscription, topic_of
from microblog.notifications.routes import OVERLAP
from microblog.taskqueue.launch import launch_task
from tests.support.servers import PATIENCE, RedisServer, wait_for

LIFETIME = 600.0  # seconds, longer than a test may take: such a stream ends for another reason


class Stream:
    """An open page's stream, read in a thread as a browser would, until the page is closed."""

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
    """An application whose streams end with the test, and with them the threads that read them."""
    app.config.update(STREAM_HEARTBEAT=0.2, STREAM_LIFETIME=LIFETIME)
    yield app
    hub: Hub = app.extensions["hub"]
    with monkeypatch.context() as patch:
        patch.setattr(Stream, "pages_open", False)
        wait_for(lambda: hub.open_streams() == 0, what="every page is closed")


def subscriptions(redis_server: RedisServer) -> int:
    """How many connections listen to the channel."""
    return int(redis_server.client.pubsub_numsub(CHANNEL)[0][1])


def wake_all(redis_server: RedisServer) -> int:
    """Let each hub look at once whether anybody still listens to it; returns how many connections hear it."""
    return int(redis_server.client.publish(CHANNEL, '{"topics": [], "event": {}}'))


def sign_in(app: Flask, user: User) -> FlaskClient:
    client = app.test_client()
    client.post("/auth/login", data={"username": user.username, "password": "cat-dog-fish"})
    return client


def test_a_change_reaches_every_open_page_of_its_user_and_nobody_elses(
    streaming: Flask, make_user: Callable[..., User]
) -> None:
    susan, ben = make_user("susan"), make_user("ben")
    with streaming.app_context():
        pages = [Stream(sign_in(streaming, susan)) for _ in range(2)]
        bens = Stream(sign_in(streaming, ben))
        wait_for(lambda: "resync" in "".join(pages[0].frames), what="the process listens")

        task = susan.launch_task("noop", "Nothing")
        db.session.commit()

        for page in pages:
            wait_for(page.events, what="the event arrives")
            assert page.events()[0]["subject"] == task.id
            assert page.events()[0]["data"]["state"] == "PENDING"
        bens_task = ben.launch_task("noop", "Nothing")
        db.session.commit()
        wait_for(bens.events, what="his own event, which comes behind theirs")
        assert {event["subject"] for event in bens.events()} == {bens_task.id}


def test_operators_hear_of_every_task_and_everybody_else_only_of_their_own(
    streaming: Flask, make_user: Callable[..., User], redis_server: RedisServer
) -> None:
    susan, ben, olga = make_user("susan"), make_user("ben"), make_user("olga")
    olga.is_operator = True
    db.session.commit()
    with streaming.app_context():
        hers, his = sign_in(streaming, olga), sign_in(streaming, ben)
        operators, olgas, bens = Stream(hers, "/admin/stream"), Stream(hers), Stream(his)
        wait_for(lambda: any("resync" in frame for frame in operators.frames), what="the process listens")
        wait_for(lambda: wake_all(redis_server) == 1, what="once for all; and that of the test before has ended")

        susans_task = susan.launch_task("noop", "Nothing")
        bens_task = ben.launch_task("noop", "Nothing")
        nobodys_task = launch_task("noop", "Nothing", user_id=None)
        db.session.commit()

        wait_for(lambda: len(operators.events()) == 3 and bens.events(), what="the events arrive")
        told = [event["subject"] for event in operators.events()]
        assert sorted(told) == sorted([susans_task.id, bens_task.id, nobodys_task.id])
        assert [event["subject"] for event in bens.events()] == [bens_task.id]
        assert olgas.events() == []


def test_the_operators_stream_is_for_operators(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    assert signed_in(susan).get("/admin/stream").status_code == 404


@pytest.mark.both_databases
def test_a_stream_begins_with_what_its_page_missed(streaming: Flask, make_user: Callable[..., User]) -> None:
    susan = make_user("susan")
    with streaming.app_context():
        before = utcnow().timestamp()
        task = susan.launch_task("noop", "Nothing")
        db.session.commit()

        stream = Stream(sign_in(streaming, susan), **{"Last-Event-ID": f"{before:.6f}"})

        wait_for(stream.events, what="the replay")
        assert [event["subject"] for event in stream.events()] == [task.id]
        long_after = float(stream.ids()[0]) + OVERLAP
        later = Stream(sign_in(streaming, susan), **{"Last-Event-ID": f"{long_after:.6f}"})
        wait_for(lambda: later.frames[1:], what="a sign of life")
        assert later.events() == []


def test_a_quiet_stream_says_that_it_is_alive(streaming: Flask, make_user: Callable[..., User]) -> None:
    stream = Stream(sign_in(streaming, make_user("susan")))

    wait_for(lambda: ": still here\n\n" in stream.frames)


def test_a_stream_ends_with_its_lifetime_and_leaves_nothing(app: Flask, susan: User) -> None:
    app.config.update(STREAM_HEARTBEAT=0.05, STREAM_LIFETIME=0.2)
    hub: Hub = app.extensions["hub"]
    response = sign_in(app, susan).get("/notifications/stream", buffered=False)
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
    assert sign_in(current_app, susan).post("/auth/logout").status_code == 302


@pytest.mark.parametrize("event", [new_password, closed_account, demoted, signed_out])
def test_a_stream_ends_when_what_it_was_opened_with_does(
    streaming: Flask, make_user: Callable[..., User], event: Callable[[User], None]
) -> None:
    with streaming.app_context():
        susan, ben = make_user("susan"), make_user("ben")
        susans, bens = Stream(sign_in(streaming, susan)), Stream(sign_in(streaming, ben))
        wait_for(lambda: "resync" in "".join(susans.frames), what="the process listens")

        event(susan)

        wait_for(lambda: susans.ended, what="her stream ends")
        assert "end" not in [told["name"] for told in susans.events()]
        assert not bens.ended
        ben.launch_task("noop", "Nothing")
        db.session.commit()
        wait_for(bens.events, what="his goes on")


def test_what_a_reader_is_behind_keeps_no_stream_from_ending(app: Flask) -> None:
    hub: Hub = app.extensions["hub"]
    subscription = Subscription(hub, frozenset())

    subscription.put(END)
    for number in range(2 * BACKLOG):
        subscription.put({"name": "task", "subject": str(number)})

    assert list(subscription.read(heartbeat=0.01, lifetime=60.0)) == []


def test_asking_tells_nothing_of_others(
    susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    susan.launch_task("noop", "Nothing")
    db.session.commit()

    assert signed_in(make_user("ben")).get("/notifications?since=0").json == []


@pytest.mark.both_databases
def test_asking_gives_the_same_events(app: Flask, susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    client = signed_in(susan)
    before = utcnow().timestamp()
    task = susan.launch_task("noop", "Nothing")
    db.session.commit()

    [event] = client.get(f"/notifications?since={before}").json
    assert (event["name"], event["subject"]) == ("task", task.id)
    assert event["data"]["progress"] == {"current": 0, "total": None, "percent": 0, "message": ""}
    assert client.get(f"/notifications?since={event['timestamp']}").json == []

    job = find_job(task.id)
    assert job is not None
    cancel_job(job)
    [cancelled] = client.get(f"/notifications?since={event['timestamp']}").json
    assert cancelled["data"]["state"] == "REVOKED"


def test_a_page_that_says_what_its_badges_show_is_told_of_those_that_are_others_by_now(
    susan: User, ben: User, signed_in: Callable[..., FlaskClient]
) -> None:
    send_message(ben, susan, "Hello")
    client, now = signed_in(susan), utcnow().timestamp() + 60

    def told(shown: str) -> list[tuple[str, int]]:
        events = client.get(f"/notifications?since={now}{shown}").json
        return sorted((event["subject"], event["data"]["count"]) for event in events)

    assert told("") == told("&unread-messages=1") == told("&unread-messages=1&unread-notifications=1") == []
    assert told("&unread-messages=0&unread-notifications=1") == [("messages", 1)]
    assert told("&unread-messages=x&unread-notifications=") == [("messages", 1), ("notifications", 1)]


@pytest.mark.parametrize("since", ["yesterday", "nan", "inf", "-inf", "1e300", ""])
def test_a_since_that_is_no_time_is_refused_with_a_sentence(
    susan: User, signed_in: Callable[..., FlaskClient], since: str
) -> None:
    client = signed_in(susan)

    for path in ("/notifications", "/notifications/stream"):
        response = client.get(path, query_string={"since": since})
        assert response.status_code == 400
        assert "must be a time" in response.text


def test_a_stranger_gets_no_stream(client: FlaskClient) -> None:
    assert client.get("/notifications/stream").status_code in (302, 401)
    assert client.get("/notifications").status_code in (302, 401)


def test_a_process_holds_one_subscription_whatever_the_number_of_its_pages(
    app: Flask, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for(lambda: wake_all(redis_server) == 0, what="the hubs of other tests have ended")
    monkeypatch.setattr(pubsub, "POLL", 0.1)
    hub: Hub = app.extensions["hub"]
    pages = [hub.join([topic_of(user_id)]) for user_id in range(100)]
    wait_for(lambda: subscriptions(redis_server))

    assert subscriptions(redis_server) == 1
    for page in pages:
        page.close()
    wait_for(lambda: subscriptions(redis_server) == 0, what="a hub that nobody listens to ends")
    assert hub.open_streams() == 0


def test_a_message_of_another_form_stops_nothing(app: Flask, redis_server: RedisServer) -> None:
    hub: Hub = app.extensions["hub"]
    page = hub.join(["somebody"])
    events = page.read(heartbeat=PATIENCE, lifetime=LIFETIME)
    assert next(events) == RESYNC

    strange = ("no json", "[]", "{}", '{"topics": 1, "event": {}}', '{"topics": [[]], "event": {}}')
    for message in (*strange, '{"topics": ["somebody"], "event": {"name": "task"}}'):
        redis_server.client.publish(CHANNEL, message)

    assert next(events) == {"name": "task"}
    page.close()


def test_every_stream_ends_when_redis_was_away_for_its_end_may_not_have_been_heard(
    streaming: Flask, make_user: Callable[..., User], redis_server: RedisServer
) -> None:
    with streaming.app_context():
        susan, ben = make_user("susan"), make_user("ben")
        browsers = [sign_in(streaming, user) for user in (susan, ben)]
        streams = [Stream(browser) for browser in browsers]
        wait_for(lambda: "resync" in "".join(streams[0].frames), what="the process listens")

        with redis_server.away():
            assert replace_password(susan, "another-secret")

        wait_for(lambda: all(stream.ended for stream in streams), what="both end")
        assert [browser.get("/notifications").status_code for browser in browsers] == [302, 200]


def test_a_page_that_is_too_far_behind_is_told_to_ask() -> None:
    page = Subscription(hub=None, topics=frozenset())  # type: ignore[arg-type]
    for number in range(BACKLOG + 1):
        page.put({"name": "task", "number": number})

    assert next(page.read(heartbeat=PATIENCE, lifetime=LIFETIME)) == RESYNC
