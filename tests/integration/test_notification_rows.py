"""Notifications: one row per kind and subject, texts rendered on display, retention, and events for open pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.accounts.services import follow_user, unfollow_user
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.messages.models import Message
from microblog.messages.services import send_message
from microblog.notifications import tasks, unread_counts
from microblog.notifications.models import Notification
from microblog.notifications.pubsub import Hub, user_topic
from microblog.notifications.push import notify_job_ended
from microblog.notifications.services import mark_notifications_read, notify
from microblog.taskqueue.interface import TaskChange
from microblog.taskqueue.models import Task
from tests.support.databases import Statement, recorded_statements
from tests.support.factories import make_job
from tests.support.servers import TIMEOUT


def sentences(browser: FlaskClient) -> list[str]:
    """Return the sentences on the notifications page; unread ones begin with a star."""
    items = re.findall(
        r"<li( class=\"unread\")?[^>]*>\s*<p>\s*<a [^>]*>(.*?)</a>", browser.get("/notifications/all").text
    )
    return [f"* {sentence}" if unread else sentence for unread, sentence in items]


def links(browser: FlaskClient) -> list[str]:
    return re.findall(r'href="(/notifications/\d+)"', browser.get("/notifications/all").text)


def all_rows() -> list[Notification]:
    query = sa.select(Notification).order_by(Notification.id)
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def unread(user: User) -> int:
    return unread_counts.unread_counts(user.id)["notifications"]


def end(app: Flask, root_id: str, user: User | None, state: str, position: int = 1) -> None:
    """Announce that a step has ended, as the engine does."""
    user_id = user.id if user else None
    notify_job_ended(app, TaskChange(f"{root_id}-{position}", root_id, position, user_id, state, None, utcnow()))


@pytest.mark.both_databases
def test_missed_ends_are_notified_once(app: Flask, susan: User) -> None:
    """The process that stored the last state of a job was killed before it notified the user."""
    done, failed, mail_failed = (
        make_job(susan, *ends, seconds_ago=60)
        for ends in (("SUCCESS", "SUCCESS"), ("FAILURE", "FAILURE"), ("SUCCESS", "FAILURE"))
    )
    make_job(susan, "REVOKED", "REVOKED", seconds_ago=60)
    make_job(susan, "SUCCESS", "STARTED", seconds_ago=60)
    make_job(susan, "SUCCESS", "SUCCESS", seconds_ago=0)
    make_job(None, "SUCCESS", "SUCCESS", seconds_ago=60)

    for _ in range(2):
        tasks.notify_missed_ends.run()

    assert {(row.subject, row.payload["state"]) for row in all_rows()} == {
        (done, "SUCCESS"),
        (failed, "FAILURE"),
        (mail_failed, "FAILURE"),
    }
    assert len(all_rows()) == 3


def test_missed_ends_are_found_since_the_last_search(app: Flask, susan: User) -> None:
    during_outage = make_job(susan, "SUCCESS", "SUCCESS", seconds_ago=7200)
    tasks.notify_missed_ends.run()
    assert [row.subject for row in all_rows()] == [during_outage]

    before_last_search = make_job(susan, "SUCCESS", "SUCCESS", seconds_ago=7300)
    since_last_search = make_job(susan, "SUCCESS", "SUCCESS", seconds_ago=60)
    tasks.notify_missed_ends.run()

    assert {row.subject for row in all_rows()} == {during_outage, since_last_search}
    assert before_last_search not in {row.subject for row in all_rows()}


def test_missed_end_is_tried_until_it_is_announced(app: Flask, susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
    done = make_job(susan, "SUCCESS", "SUCCESS", seconds_ago=7200)
    with monkeypatch.context() as broken:
        broken.setattr("microblog.notifications.push.notify", lambda *_, **__: 1 / 0)
        tasks.notify_missed_ends.run()
    assert all_rows() == []

    tasks.notify_missed_ends.run()

    assert [row.subject for row in all_rows()] == [done]


def test_followers_and_messages_notify_user(browser: FlaskClient, susan: User, miguel: User) -> None:
    follow_user(miguel, susan)
    for number in range(3):
        send_message(miguel, susan, f"Number {number}")

    assert sentences(browser) == ["* miguel wrote you 3 new messages.", "* miguel began to follow you."]
    message, follower = links(browser)
    assert browser.get(follower).headers["Location"] == "/user/miguel"
    assert sentences(browser) == ["* miguel wrote you 3 new messages.", "miguel began to follow you."]
    assert browser.get(message).headers["Location"] == "/send_message/miguel"
    browser.get("/send_message/miguel")
    assert sentences(browser) == ["miguel wrote to you.", "miguel began to follow you."]
    send_message(miguel, susan, "One more")
    assert sentences(browser) == ["* miguel wrote you 1 new message.", "miguel began to follow you."]


def test_notification_shows_current_username(browser: FlaskClient, susan: User, miguel: User) -> None:
    follow_user(miguel, susan)
    miguel.username = "Mike"
    db.session.commit()

    assert sentences(browser) == ["* Mike began to follow you."]


def test_message_count_in_notification_is_capped(
    browser: FlaskClient, susan: User, miguel: User, statements: list[Statement]
) -> None:
    send_message(miguel, susan, "Hello")
    db.session.add_all(
        Message(sender_id=miguel.id, recipient_id=susan.id, body="More") for _ in range(unread_counts.MAX_COUNT)
    )
    db.session.commit()
    statements.clear()

    assert sentences(browser) == ["* miguel wrote you more than 99 new messages."]
    counts = [sql for sql, _parameters in statements if "FROM notification" in sql and "count(*)" in sql]
    assert len(counts) == 1, "counted twice"


def test_reading_messages_marks_notifications_read(
    browser: FlaskClient, susan: User, miguel: User, make_user: Callable[..., User]
) -> None:
    send_message(miguel, susan, "Hello")
    send_message(make_user("ben"), susan, "Hello")
    assert unread(susan) == 2

    browser.get("/send_message/miguel")
    assert sentences(browser) == ["* ben wrote you 1 new message.", "miguel wrote to you."]
    browser.get("/messages")
    assert unread(susan) == 0


@pytest.mark.both_databases
def test_following_again_creates_no_notification(browser: FlaskClient, susan: User, miguel: User) -> None:
    follow_user(miguel, susan)
    mark_notifications_read(susan.id)
    db.session.commit()
    unfollow_user(miguel, susan)

    assert sentences(browser) == ["miguel began to follow you."], "the notification remains"
    assert follow_user(miguel, susan)

    assert len(all_rows()) == 1
    assert unread(susan) == 0


@pytest.mark.both_databases
def test_mark_all_read_affects_own_notifications_only(
    browser: FlaskClient, susan: User, miguel: User, make_user: Callable[..., User]
) -> None:
    ben = make_user("ben")
    for follower, followed in ((miguel, susan), (ben, susan), (susan, miguel)):
        follow_user(follower, followed)
    assert "Mark all as read" in browser.get("/notifications/all").text

    page = browser.post("/notifications/read", follow_redirects=True).text

    assert "Mark all as read" not in page
    assert (unread(susan), unread(miguel)) == (0, 1)
    [other_row] = [row for row in all_rows() if row.user_id == miguel.id]
    assert browser.get(f"/notifications/{other_row.id}").status_code == 404
    assert browser.get("/notifications/read").status_code == 405
    assert unread(miguel) == 1


def test_unknown_notification_kind_is_skipped(browser: FlaskClient, susan: User) -> None:
    row = notify(susan.id, "of-old", "1")
    db.session.commit()
    assert row is not None

    assert sentences(browser) == []
    assert browser.get(f"/notifications/{row.id}").headers["Location"] == "/notifications/all"
    assert unread(susan) == 0


@pytest.mark.both_databases
def test_notifications_of_two_tasks_are_separate(susan: User) -> None:
    for subject in ("one", "two", "one"):
        notify(susan.id, "export_posts", subject, payload={"state": subject})
    db.session.commit()

    assert [(row.subject, row.payload) for row in all_rows()] == [("one", {"state": "one"}), ("two", {"state": "two"})]


def test_task_without_notification_runs_no_query(app: Flask, susan: User, statements: list[Statement]) -> None:
    user_id = susan.id

    for name, expects_query in (("noop", False), ("import_posts", True)):
        statements.clear()
        notify_job_ended(app, TaskChange("one", "one", 0, user_id, "SUCCESS", None, utcnow(), name))
        assert bool(statements) is expects_query, name


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("state", "sentence"), [("SUCCESS", "* Your export is ready."), ("FAILURE", "* Your export has failed.")]
)
def test_job_end_notifies_once(app: Flask, browser: FlaskClient, susan: User, state: str, sentence: str) -> None:
    root_id = make_job(susan, "SUCCESS", state)

    end(app, root_id, susan, "SUCCESS", position=0)
    assert all_rows() == []
    for _ in range(2):
        end(app, root_id, susan, state)

    assert sentences(browser) == [sentence]
    assert browser.get(links(browser)[0]).headers["Location"] == "/tasks"
    end(app, root_id, susan, state)
    assert unread(susan) == 0


def test_cancelled_and_system_jobs_do_not_notify(app: Flask, susan: User) -> None:
    end(app, make_job(susan, "REVOKED"), susan, "REVOKED", position=0)
    end(app, make_job(None, "SUCCESS"), None, "SUCCESS", position=0)
    end(app, make_job(susan, "SUCCESS", name="noop"), susan, "SUCCESS", position=0)
    end(app, "no-such-job", susan, "FAILURE", position=0)

    assert all_rows() == []


@pytest.mark.both_databases
def test_failed_notification_is_logged(app: Flask, susan: User, caplog: pytest.LogCaptureFixture) -> None:
    root_id = make_job(susan, "SUCCESS")
    db.session.execute(sa.text("DROP TABLE notification"))
    db.session.commit()

    end(app, root_id, susan, "SUCCESS", position=0)

    assert f"the user of job {root_id} is not notified of its end" in caplog.text


def test_finished_export_notifies_user(
    app: Flask, susan: User, browser: FlaskClient, worker: object, wait_for: Callable[..., Any]
) -> None:
    browser.post("/export_posts")

    wait_for(lambda: sentences(browser) == ["* Your export is ready."], what="the notification is shown")

    [row] = all_rows()
    assert db.session.scalars(sa.select(Task.id).where(Task.position == 0)).one() == row.subject


def test_open_pages_receive_notification_and_counts(app: Flask, susan: User, miguel: User) -> None:
    hub: Hub = app.extensions["hub"]
    page = hub.subscribe([user_topic(susan.id)])
    events = page.read(heartbeat=TIMEOUT, lifetime=5 * TIMEOUT)
    assert next(events) == {"name": "resync"}

    send_message(miguel, susan, "Hello")

    received = [next(events) for _ in range(3)]
    page.close()
    assert all(event is not None and set(event) == {"name", "subject", "timestamp", "data"} for event in received)
    row, *numbers = [(event["name"], event["subject"], event["data"]) for event in received if event]
    assert row == ("message", str(miguel.id), {"id": all_rows()[0].id, "read": False})
    assert sorted(numbers, key=lambda number: number[1]) == [
        ("unread", "messages", {"count": 1}),
        ("unread", "notifications", {"count": 1}),
    ]


@pytest.mark.both_databases
def test_poll_returns_same_events_as_stream(browser: FlaskClient, susan: User, miguel: User) -> None:
    since = utcnow().timestamp()
    send_message(miguel, susan, "Hello")

    events = browser.get(f"/notifications?since={since}").get_json()
    assert [event["name"] for event in events] == ["message", "unread", "unread"]
    assert [event["data"]["count"] for event in events[1:]] == [1, 1]
    read_from = events[0]["timestamp"]
    assert browser.get(f"/notifications?since={read_from}").get_json() == []

    browser.get("/messages")
    events = browser.get(f"/notifications?since={read_from}").get_json()
    assert events[0]["data"]["read"] is True
    assert [event["data"]["count"] for event in events[1:]] == [0, 0]


@pytest.mark.both_databases
def test_expired_notifications_are_purged(app: Flask, susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microblog.database.PURGE_BATCH", 2)
    day = 24 * 3600
    app.config["NOTIFICATION_LIFETIME"] = 7 * day
    for days in (9, 8, 8, 7.1, 6.9, 0):
        row = notify(susan.id, "follower", str(days) if days != 8 else str(len(all_rows())))
        assert row is not None
        row.timestamp = utcnow() - timedelta(days=days)
    db.session.commit()

    tasks.purge_notifications()

    db.session.rollback()
    assert [row.subject for row in all_rows()] == ["6.9", "0"]


def test_page_query_count_is_independent_of_rows(
    browser: FlaskClient, susan: User, make_user: Callable[..., User]
) -> None:
    def queries() -> int:
        with recorded_statements() as statements:
            browser.get("/notifications/all")
        return len(statements)

    def add_followers(names: range) -> None:
        for number in names:
            follower = User(username=f"fan{number}", email=f"fan{number}@example.com", password_hash="")
            db.session.add(follower)
            db.session.commit()
            follow_user(follower, susan)

    add_followers(range(1))
    few = queries()
    add_followers(range(1, 12))

    assert queries() == few
