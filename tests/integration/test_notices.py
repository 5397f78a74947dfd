"""What users are told: one row for each thing, in words, kept for a while, and on their open pages at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine

from microblog.accounts.models import User
from microblog.accounts.services import follow_user, unfollow_user
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.messages.models import Message
from microblog.messages.services import send_message
from microblog.notifications import tasks, unread_counts
from microblog.notifications.job_notifications import notify_job_ended
from microblog.notifications.models import Notification
from microblog.notifications.pubsub import Hub, topic_of
from microblog.notifications.services import mark_notifications_read, notify
from microblog.taskqueue.interface import TaskChange
from microblog.taskqueue.models import Task
from tests.support.factories import make_job
from tests.support.servers import PATIENCE


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """What is sent to any database meanwhile."""
    sent: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        sent.append(statement)

    sa.event.listen(Engine, "before_cursor_execute", note)
    yield sent
    sa.event.remove(Engine, "before_cursor_execute", note)


def told(browser: FlaskClient) -> list[str]:
    """The sentences on the page, those that are new with a star."""
    items = re.findall(
        r"<li( class=\"unread\")?[^>]*>\s*<p>\s*<a [^>]*>(.*?)</a>", browser.get("/notifications/all").text
    )
    return [f"* {sentence}" if new else sentence for new, sentence in items]


def links(browser: FlaskClient) -> list[str]:
    return re.findall(r'href="(/notifications/\d+)"', browser.get("/notifications/all").text)


def all_rows() -> list[Notification]:
    query = sa.select(Notification).order_by(Notification.id)
    return list(db.session.scalars(query.execution_options(populate_existing=True)))


def unread(user: User) -> int:
    return unread_counts.unread_counts(user.id)["notifications"]


def end(app: Flask, root_id: str, user: User | None, state: str, position: int = 1) -> None:
    """Announce, as the engine does, that a step has ended."""
    user_id = user.id if user else None
    notify_job_ended(app, TaskChange(f"{root_id}-{position}", root_id, position, user_id, state, None, utcnow()))


def test_users_are_told_who_follows_them_and_who_wrote(browser: FlaskClient, susan: User, miguel: User) -> None:
    follow_user(miguel, susan)
    for number in range(3):
        send_message(miguel, susan, f"Number {number}")

    assert told(browser) == ["* miguel wrote you 3 new messages.", "* miguel began to follow you."]
    message, follower = links(browser)
    assert browser.get(follower).headers["Location"] == "/user/miguel"
    assert told(browser) == ["* miguel wrote you 3 new messages.", "miguel began to follow you."]
    assert browser.get(message).headers["Location"] == "/send_message/miguel"
    browser.get("/send_message/miguel")
    assert told(browser) == ["miguel wrote to you.", "miguel began to follow you."]
    send_message(miguel, susan, "One more")
    assert told(browser) == ["* miguel wrote you 1 new message.", "miguel began to follow you."]


def test_words_are_made_when_they_are_shown_of_what_is_true_then(
    browser: FlaskClient, susan: User, miguel: User
) -> None:
    follow_user(miguel, susan)
    miguel.username = "Mike"
    db.session.commit()

    assert told(browser) == ["* Mike began to follow you."]


def test_what_somebody_wrote_is_counted_as_far_as_a_badge_counts(
    browser: FlaskClient, susan: User, miguel: User, statements: list[str]
) -> None:
    send_message(miguel, susan, "Hello")
    db.session.add_all(
        Message(sender_id=miguel.id, recipient_id=susan.id, body="More") for _ in range(unread_counts.MOST)
    )
    db.session.commit()
    statements.clear()

    assert told(browser) == ["* miguel wrote you more than 99 new messages."]
    assert len([one for one in statements if "FROM notification" in one and "count(*)" in one]) == 1, "counted twice"


def test_whoever_reads_the_messages_is_told_of_them_no_longer(
    browser: FlaskClient, susan: User, miguel: User, make_user: Callable[..., User]
) -> None:
    send_message(miguel, susan, "Hello")
    send_message(make_user("ben"), susan, "Hello")
    assert unread(susan) == 2

    browser.get("/send_message/miguel")
    assert told(browser) == ["* ben wrote you 1 new message.", "miguel wrote to you."]
    browser.get("/messages")
    assert unread(susan) == 0


@pytest.mark.both_databases
def test_following_again_tells_nothing_new(browser: FlaskClient, susan: User, miguel: User) -> None:
    follow_user(miguel, susan)
    mark_notifications_read(susan.id)
    db.session.commit()
    unfollow_user(miguel, susan)

    assert told(browser) == ["miguel began to follow you."], "which is true still"
    assert follow_user(miguel, susan)

    assert len(all_rows()) == 1
    assert unread(susan) == 0


@pytest.mark.both_databases
def test_all_are_marked_as_read_at_once_and_only_ones_own(
    browser: FlaskClient, susan: User, miguel: User, make_user: Callable[..., User]
) -> None:
    ben = make_user("ben")
    for follower, followed in ((miguel, susan), (ben, susan), (susan, miguel)):
        follow_user(follower, followed)
    assert "Mark all as read" in browser.get("/notifications/all").text

    page = browser.post("/notifications/read", follow_redirects=True).text

    assert "Mark all as read" not in page
    assert (unread(susan), unread(miguel)) == (0, 1)
    [hers] = [row for row in all_rows() if row.user_id == miguel.id]
    assert browser.get(f"/notifications/{hers.id}").status_code == 404
    assert browser.get("/notifications/read").status_code == 405
    assert unread(miguel) == 1


def test_a_kind_that_nobody_tells_of_any_longer_is_left_out(browser: FlaskClient, susan: User) -> None:
    row = notify(susan.id, "of-old", "1")
    db.session.commit()
    assert row is not None

    assert told(browser) == []
    assert browser.get(f"/notifications/{row.id}").headers["Location"] == "/notifications/all"
    assert unread(susan) == 0


@pytest.mark.both_databases
def test_two_running_tasks_do_not_overwrite_each_other(susan: User) -> None:
    for subject in ("one", "two", "one"):
        notify(susan.id, "export_posts", subject, payload={"state": subject})
    db.session.commit()

    assert [(row.subject, row.payload) for row in all_rows()] == [("one", {"state": "one"}), ("two", {"state": "two"})]


def test_the_end_of_a_task_that_nobody_tells_of_costs_no_question(
    app: Flask, susan: User, statements: list[str]
) -> None:
    user_id = susan.id

    for name, questions in (("noop", False), ("import_posts", True)):
        statements.clear()
        notify_job_ended(app, TaskChange("one", "one", 0, user_id, "SUCCESS", None, utcnow(), name))
        assert bool(statements) is questions, name


@pytest.mark.both_databases
@pytest.mark.parametrize(
    ("state", "sentence"), [("SUCCESS", "* Your export is ready."), ("FAILURE", "* Your export has failed.")]
)
def test_the_end_of_a_job_is_told_once(
    app: Flask, browser: FlaskClient, susan: User, state: str, sentence: str
) -> None:
    root_id = make_job(susan, "SUCCESS", state)

    end(app, root_id, susan, "SUCCESS", position=0)
    assert all_rows() == []
    for _again in range(2):
        end(app, root_id, susan, state)

    assert told(browser) == [sentence]
    assert browser.get(links(browser)[0]).headers["Location"] == "/tasks"
    end(app, root_id, susan, state)
    assert unread(susan) == 0


def test_a_cancelled_job_a_system_job_and_a_kind_without_words_are_not_told(app: Flask, susan: User) -> None:
    end(app, make_job(susan, "REVOKED"), susan, "REVOKED", position=0)
    end(app, make_job(None, "SUCCESS"), None, "SUCCESS", position=0)
    end(app, make_job(susan, "SUCCESS", name="noop"), susan, "SUCCESS", position=0)
    end(app, "no-such-job", susan, "FAILURE", position=0)

    assert all_rows() == []


@pytest.mark.both_databases
def test_a_row_that_cannot_be_written_does_no_harm_to_the_engine(
    app: Flask, susan: User, caplog: pytest.LogCaptureFixture
) -> None:
    root_id = make_job(susan, "SUCCESS")
    db.session.execute(sa.text("DROP TABLE notification"))
    db.session.commit()

    end(app, root_id, susan, "SUCCESS", position=0)

    assert f"the end of {root_id} is not among its user's notifications" in caplog.text


def test_a_finished_export_is_among_the_notifications(
    app: Flask, susan: User, browser: FlaskClient, worker: object, wait_for: Callable[..., Any]
) -> None:
    browser.post("/export_posts")

    wait_for(lambda: told(browser) == ["* Your export is ready."], what="the row is there")

    [row] = all_rows()
    assert db.session.scalars(sa.select(Task.id).where(Task.position == 0)).one() == row.subject


def test_open_pages_are_told_of_rows_and_numbers(app: Flask, susan: User, miguel: User) -> None:
    hub: Hub = app.extensions["hub"]
    page = hub.join([topic_of(susan.id)])
    events = page.read(heartbeat=PATIENCE, lifetime=5 * PATIENCE)
    assert next(events) == {"name": "resync"}

    send_message(miguel, susan, "Hello")

    told = [next(events) for _ in range(3)]
    page.close()
    assert all(event is not None and set(event) == {"name", "subject", "timestamp", "data"} for event in told)
    row, *numbers = [(event["name"], event["subject"], event["data"]) for event in told if event]
    assert row == ("message", str(miguel.id), {"id": all_rows()[0].id, "read": False})
    assert sorted(numbers, key=lambda number: number[1]) == [
        ("unread", "messages", {"count": 1}),
        ("unread", "notifications", {"count": 1}),
    ]


@pytest.mark.both_databases
def test_asking_tells_what_the_stream_told(browser: FlaskClient, susan: User, miguel: User) -> None:
    before = utcnow().timestamp()
    send_message(miguel, susan, "Hello")

    events = browser.get(f"/notifications?since={before}").json
    assert [event["name"] for event in events] == ["message", "unread", "unread"]
    assert [event["data"]["count"] for event in events[1:]] == [1, 1]
    read_from = events[0]["timestamp"]
    assert browser.get(f"/notifications?since={read_from}").json == []

    browser.get("/messages")
    events = browser.get(f"/notifications?since={read_from}").json
    assert events[0]["data"]["read"] is True
    assert [event["data"]["count"] for event in events[1:]] == [0, 0]


@pytest.mark.both_databases
def test_what_was_told_long_ago_is_forgotten(app: Flask, susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "BATCH", 2)
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


def test_the_page_takes_as_many_queries_for_many_rows_as_for_few(
    browser: FlaskClient, susan: User, make_user: Callable[..., User]
) -> None:
    def queries() -> int:
        statements: list[str] = []

        def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
            statements.append(statement)

        sa.event.listen(db.engine, "before_cursor_execute", note)
        browser.get("/notifications/all")
        sa.event.remove(db.engine, "before_cursor_execute", note)
        return len(statements)

    def add_fans(names: range) -> None:
        for number in names:
            fan = User(username=f"fan{number}", email=f"fan{number}@example.com", password_hash="")
            db.session.add(fan)
            db.session.commit()
            follow_user(fan, susan)

    add_fans(range(1))
    few = queries()
    add_fans(range(1, 12))

    assert queries() == few
