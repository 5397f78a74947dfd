"""Private messages: sent, read and deleted by their sender and recipient only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable
from microblog.extensions import db
from microblog.messages import services
from microblog.messages.models import MAX_MESSAGE, Message
from microblog.notifications import unread_counts
from microblog.notifications.models import Notification
from microblog.notifications.services import notify
from microblog.pagination import PageRequest
from microblog.posts.models import Post
from tests.support.clients import sign_in
from tests.support.databases import recorded_statements
from tests.support.factories import BEGINNING

pytestmark = pytest.mark.both_databases


@pytest.fixture
def recipient_browser(signed_in: Callable[..., FlaskClient], miguel: User) -> FlaskClient:
    return signed_in(miguel)


def shown(page: str) -> list[str]:
    return re.findall(r'<p dir="auto" class="post-body">(.*?)</p>', page, re.DOTALL)


def badge(page: str, name: str = "messages") -> str | None:
    """Return the number in the navigation's badge, or None if the badge is hidden."""
    match = re.search(rf'data-unread="{name}"( hidden)?><span data-number>(.*?)<', page)
    assert match is not None
    return None if match[1] else match[2]


def add_messages(sender: User, recipient: User, *hours: int) -> None:
    db.session.add_all(
        Message(
            sender_id=sender.id,
            recipient_id=recipient.id,
            body=f"{sender.username} {hour}",
            timestamp=BEGINNING + timedelta(hours=hour),
        )
        for hour in hours
    )
    db.session.commit()


def count(model: type[Message] | type[Notification]) -> int | None:
    return db.session.scalar(sa.select(sa.func.count()).select_from(model))


def unread(user: User) -> dict[str, int]:
    return unread_counts.unread_counts(user.id)


def test_message_is_new_until_recipient_reads_it(browser: FlaskClient, recipient_browser: FlaskClient) -> None:
    sent = browser.post("/send_message/MIGUEL", data={"message": " Hello\r\n<b>you</b> "}, follow_redirects=True)

    assert "Your message is sent." in sent.text
    assert shown(sent.text) == ["Hello\n&lt;b&gt;you&lt;/b&gt;"]
    assert badge(sent.text) is None
    assert badge(recipient_browser.get("/explore").text) == "1"
    first, second = recipient_browser.get("/messages").text, recipient_browser.get("/messages").text
    assert shown(first) == shown(second) == ["Hello\n&lt;b&gt;you&lt;/b&gt;"]
    assert badge(first) is badge(second) is None
    assert "New</span>" in first
    assert "New</span>" not in second
    assert shown(browser.get("/messages/sent").text) == shown(first)
    assert shown(browser.get("/messages").text) == []


def test_third_user_cannot_see_or_delete_message(
    browser: FlaskClient,
    susan: User,
    miguel: User,
    make_user: Callable[..., User],
    signed_in: Callable[..., FlaskClient],
) -> None:
    message = services.send_message(susan, miguel, "For you alone")
    third_browser = signed_in(make_user("stranger"))

    pages = ("/messages", "/messages/sent", "/send_message/susan", "/send_message/miguel", "/notifications/all")
    assert all("For you alone" not in third_browser.get(page).text for page in pages)
    assert third_browser.get(f"/messages/{message.id}/delete").status_code == 404
    assert third_browser.post(f"/messages/{message.id}/delete").status_code == 404
    assert count(Message) == 1


def test_message_requires_sign_in_and_another_user(client: FlaskClient, browser: FlaskClient, susan: User) -> None:
    assert client.get("/messages").status_code == 302
    assert client.post("/send_message/susan", data={"message": "Hello"}).status_code == 302
    assert browser.get("/send_message/nobody").status_code == 404
    for response in (
        browser.get("/send_message/SUSAN", follow_redirects=True),
        browser.post("/send_message/susan", data={"message": "Hello me"}, follow_redirects=True),
    ):
        assert "You cannot write to yourself." in response.text
    with pytest.raises(ValueError, match="users cannot send messages to themselves"):
        services.send_message(susan, susan, "Hello me")
    assert count(Message) == 0


def test_invalid_message_is_refused_with_reason(browser: FlaskClient, miguel: User) -> None:
    for text, reason in (
        (" \r\n ", "at least one character"),
        ("\u200b\u2800\u3164", "at least one character"),
        ("x" * (MAX_MESSAGE + 1), "at most 1000 characters; this one has 1001"),
        ("\0", "characters that cannot be kept"),
        (None, "at least one character"),
    ):
        response = browser.post("/send_message/miguel", data={} if text is None else {"message": text})
        assert response.status_code == 422
        assert reason in response.text
    assert count(Message) == count(Notification) == 0


def test_longest_message_is_accepted(browser: FlaskClient, miguel: User) -> None:
    longest = "\N{DOVE OF PEACE}" * MAX_MESSAGE

    browser.post("/send_message/miguel", data={"message": longest})

    assert db.session.scalars(sa.select(Message.body)).one() == longest


def test_rate_limited_message_stays_in_form(
    make_app: Callable[..., Flask], miguel: User, make_user: Callable[..., User]
) -> None:
    app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_MESSAGE="2 per hour")
    senders = [app.test_client(), app.test_client()]
    for client, user in zip(senders, (make_user("susan"), make_user("ben")), strict=True):
        sign_in(client, user.username)

    responses = [senders[0].post("/send_message/miguel", data={"message": f"Number {n}"}) for n in range(3)]

    assert [response.status_code for response in responses] == [302, 302, 429]
    assert "Number 2" in responses[2].text
    assert senders[0].get("/send_message/miguel").status_code == 200
    assert senders[1].post("/send_message/miguel", data={"message": "Mine"}).status_code == 302


def test_only_shown_messages_are_marked_read(
    app: Flask, recipient_browser: FlaskClient, susan: User, miguel: User
) -> None:
    app.config["POSTS_PER_PAGE"] = 2
    add_messages(susan, miguel, 1, 2, 3)

    first = recipient_browser.get("/messages").text
    [older] = re.findall(r'rel="next" href="([^"]+)"', first)
    second = recipient_browser.get(older.replace("&amp;", "&")).text

    assert (shown(first), badge(first)) == (["susan 3", "susan 2"], "1")
    assert (shown(second), badge(second)) == (["susan 1"], None)


def test_conversation_pages_messages_of_both_users(
    app: Flask, browser: FlaskClient, susan: User, miguel: User, make_user: Callable[..., User]
) -> None:
    app.config["POSTS_PER_PAGE"] = 3
    ben = make_user("ben")
    add_messages(susan, miguel, 1, 3, 4, 7, 9)
    add_messages(miguel, susan, 2, 5, 6, 8)
    add_messages(ben, susan, 5)
    add_messages(susan, ben, 6)

    page = services.messages_between(susan, miguel)
    down = [message.body.split()[1] for message in page.items]
    while page.next:
        page = services.messages_between(susan, miguel, PageRequest(before=page.next))
        down += [message.body.split()[1] for message in page.items]
    up = [message.body.split()[1] for message in page.items]
    while page.previous:
        page = services.messages_between(susan, miguel, PageRequest(after=page.previous))
        up = [number for message in page.items if (number := message.body.split()[1]) not in up] + up

    assert down == up == list("987654321")
    assert unread(susan)["messages"] == 5
    assert shown(browser.get("/send_message/miguel").text) == ["susan 9", "miguel 8", "susan 7"]
    assert unread(susan)["messages"] == 4


def test_deleted_message_remains_for_other_user(
    browser: FlaskClient, recipient_browser: FlaskClient, susan: User, miguel: User
) -> None:
    message = services.send_message(susan, miguel, "Hello")
    delete = f"/messages/{message.id}/delete"

    confirmation = browser.get(delete, headers={"Referer": "http://localhost/messages/sent"}).text
    assert "Delete this message?" in confirmation
    assert 'name="next" value="/messages/sent"' in confirmation
    assert browser.post(delete, data={"next": "/messages/sent"}).location == "/messages/sent"
    assert browser.get(delete).status_code == browser.post(delete).status_code == 404
    assert [shown(browser.get(page).text) for page in ("/messages/sent", "/send_message/miguel")] == [[], []]
    assert unread(miguel) == {"messages": 1, "notifications": 1}

    assert recipient_browser.post(delete).status_code == 302
    assert unread(miguel) == {"messages": 0, "notifications": 0}
    assert count(Message) == 0


def test_out_of_range_id_is_no_server_error(browser: FlaskClient) -> None:
    for number in ("2147483647", "2147483648", "9" * 40):
        assert browser.get(f"/messages/{number}/delete").status_code == 404
        assert browser.post(f"/messages/{number}/delete").status_code in (404, 405)
        assert browser.get(f"/notifications/{number}").status_code == 404
    for page in ("/messages", "/notifications/all", "/explore"):
        assert browser.get(f"{page}?before=2026-01-01T00:00:00.000000Z_999999999999999999").status_code == 200


@pytest.mark.parametrize("username", ["susan", "miguel"])
def test_messages_are_deleted_with_either_user(susan: User, miguel: User, username: str) -> None:
    services.send_message(susan, miguel, "Hello")
    services.send_message(miguel, susan, "Hello")

    db.session.execute(sa.delete(User).where(User.username == username))
    db.session.commit()

    assert count(Message) == count(Notification) == 0


def test_message_to_deleted_user_is_refused(susan: User, miguel: User) -> None:
    deleted = User(id=miguel.id, username="miguel")
    db.session.execute(sa.delete(User).where(User.id == miguel.id))
    db.session.commit()

    with pytest.raises(services.RecipientUnavailable):
        services.send_message(susan, deleted, "Hello")
    assert count(Message) == 0


def test_database_failure_after_commit_reports_success(
    app: Flask, browser: FlaskClient, recipient_browser: FlaskClient, susan: User, miguel: User
) -> None:
    def start_outage(session: object) -> None:
        sa.event.listen(db.engine, "before_cursor_execute", fail)

    def fail(connection: object, cursor: object, statement: str, *rest: object) -> None:
        raise DatabaseUnavailable(statement, {}, OSError("gone"))

    responses = []
    for path, data in (("/", {"post": "Kept"}), ("/send_message/miguel", {"message": "Kept"})):
        sa.event.listen(db.session, "after_commit", start_outage)
        try:
            responses.append(browser.post(path, data=data))
        finally:
            sa.event.remove(db.session, "after_commit", start_outage)
            sa.event.remove(db.engine, "before_cursor_execute", fail)

    assert [(response.status_code, response.location) for response in responses] == [
        (302, "/"),
        (302, "/send_message/miguel"),
    ]
    assert shown(recipient_browser.get("/messages").text) == ["Kept"]
    assert db.session.scalars(sa.select(Post.body)).all() == ["Kept"]


def test_message_sent_during_read_stays_unread(susan: User, miguel: User, monkeypatch: pytest.MonkeyPatch) -> None:
    count_unread = services.count_unread_by_sender
    first = services.send_message(miguel, susan, "First")

    def send_meanwhile(reader_id: int, sender_ids: Iterable[int]) -> dict[int, int]:
        counts = count_unread(reader_id, sender_ids)
        db.session.add(Message(sender_id=miguel.id, recipient_id=susan.id, body="Second"))
        notify(susan.id, services.KIND, str(miguel.id), actor_id=miguel.id)
        return counts

    with monkeypatch.context() as patch:
        patch.setattr(services, "count_unread_by_sender", send_meanwhile)
        assert services.mark_messages_read(susan, [first]) == {first.id}

    assert unread(susan) == {"messages": 1, "notifications": 1}
    services.mark_messages_read(susan, db.session.scalars(sa.select(Message)))
    assert unread(susan) == {"messages": 0, "notifications": 0}


def test_unread_count_is_one_capped_index_query(susan: User, miguel: User, database: str) -> None:
    read = {"sender_id": susan.id, "recipient_id": miguel.id, "body": "Old", "read_at": utcnow()}
    db.session.execute(sa.insert(Message), [read | {"timestamp": BEGINNING} for _ in range(3000)])
    add_messages(susan, miguel, *range(unread_counts.MAX_COUNT + 20))
    if database == "postgresql":
        db.session.execute(sa.text("ANALYZE"))
    user_id = miguel.id

    with recorded_statements() as statements:
        number = services.unread_message_count(user_id)

    [statement] = statements
    plan = statement.plan()
    assert number == unread_counts.MAX_COUNT
    assert "ix_message_unread" in plan
