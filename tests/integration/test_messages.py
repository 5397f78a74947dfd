"""Private messages: written, read and deleted by the two whom they are between, and by nobody else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.messages import services
from microblog.messages.models import MAX_LENGTH, Message
from microblog.notifications import unread_counts
from microblog.notifications.models import Notification
from microblog.notifications.services import notify
from microblog.posts.models import Post

pytestmark = pytest.mark.both_databases

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def his_browser(signed_in: Callable[..., FlaskClient], miguel: User) -> FlaskClient:
    return signed_in(miguel)


def shown(page: str) -> list[str]:
    return re.findall(r'<p dir="auto" class="post-body">(.*?)</p>', page, re.DOTALL)


def badge(page: str, name: str = "messages") -> str | None:
    """The number that the navigation shows, None if it shows none."""
    found = re.search(rf'data-unread="{name}"( hidden)?><span data-number>(.*?)<', page)
    assert found is not None
    return None if found[1] else found[2]


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


def test_a_message_is_read_by_whom_it_is_for_and_is_new_until_then(
    browser: FlaskClient, his_browser: FlaskClient
) -> None:
    sent = browser.post("/send_message/MIGUEL", data={"message": " Hello\r\n<b>you</b> "}, follow_redirects=True)

    assert "Your message is sent." in sent.text
    assert shown(sent.text) == ["Hello\n&lt;b&gt;you&lt;/b&gt;"]
    assert badge(sent.text) is None
    assert badge(his_browser.get("/explore").text) == "1"
    first, second = his_browser.get("/messages").text, his_browser.get("/messages").text
    assert shown(first) == shown(second) == ["Hello\n&lt;b&gt;you&lt;/b&gt;"]
    assert badge(first) is badge(second) is None
    assert "New</span>" in first
    assert "New</span>" not in second
    assert shown(browser.get("/messages/sent").text) == shown(first)
    assert shown(browser.get("/messages").text) == []


def test_nobody_else_gets_to_see_a_message_or_to_delete_it(
    browser: FlaskClient,
    susan: User,
    miguel: User,
    make_user: Callable[..., User],
    signed_in: Callable[..., FlaskClient],
) -> None:
    message = services.send_message(susan, miguel, "For you alone")
    stranger = signed_in(make_user("stranger"))

    pages = ("/messages", "/messages/sent", "/send_message/susan", "/send_message/miguel", "/notifications/all")
    assert all("For you alone" not in stranger.get(page).text for page in pages)
    assert stranger.get(f"/messages/{message.id}/delete").status_code == 404
    assert stranger.post(f"/messages/{message.id}/delete").status_code == 404
    assert count(Message) == 1


def test_a_message_takes_an_account_and_somebody_else(client: FlaskClient, browser: FlaskClient, susan: User) -> None:
    assert client.get("/messages").status_code == 302
    assert client.post("/send_message/susan", data={"message": "Hello"}).status_code == 302
    assert browser.get("/send_message/nobody").status_code == 404
    for answer in (
        browser.get("/send_message/SUSAN", follow_redirects=True),
        browser.post("/send_message/susan", data={"message": "Hello me"}, follow_redirects=True),
    ):
        assert "You cannot write to yourself." in answer.text
    with pytest.raises(ValueError, match="nobody writes to themselves"):
        services.send_message(susan, susan, "Hello me")
    assert count(Message) == 0


def test_a_bad_message_is_refused_with_a_sentence(browser: FlaskClient, miguel: User) -> None:
    for text, sentence in (
        (" \r\n ", "at least one character"),
        ("\u200b\u2800\u3164", "at least one character"),
        ("x" * (MAX_LENGTH + 1), "at most 1000 characters; this one has 1001"),
        ("\0", "characters that cannot be kept"),
        (None, "at least one character"),
    ):
        answer = browser.post("/send_message/miguel", data={} if text is None else {"message": text})
        assert answer.status_code == 422
        assert sentence in answer.text
    assert count(Message) == count(Notification) == 0


def test_the_longest_message_is_taken(browser: FlaskClient, miguel: User) -> None:
    longest = "\N{DOVE OF PEACE}" * MAX_LENGTH

    browser.post("/send_message/miguel", data={"message": longest})

    assert db.session.scalars(sa.select(Message.body)).one() == longest


def test_a_sender_is_limited_and_keeps_what_was_not_sent(
    make_app: Callable[..., Flask], miguel: User, make_user: Callable[..., User]
) -> None:
    app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_MESSAGE="2 per hour")
    senders = [app.test_client(), app.test_client()]
    for client, user in zip(senders, (make_user("susan"), make_user("ben")), strict=True):
        client.post("/auth/login", data={"username": user.username, "password": "cat-dog-fish"})

    answers = [senders[0].post("/send_message/miguel", data={"message": f"Number {n}"}) for n in range(3)]

    assert [answer.status_code for answer in answers] == [302, 302, 429]
    assert "Number 2" in answers[2].text
    assert senders[0].get("/send_message/miguel").status_code == 200
    assert senders[1].post("/send_message/miguel", data={"message": "Mine"}).status_code == 302


def test_only_what_was_shown_is_read(app: Flask, his_browser: FlaskClient, susan: User, miguel: User) -> None:
    app.config["POSTS_PER_PAGE"] = 2
    add_messages(susan, miguel, 1, 2, 3)

    first = his_browser.get("/messages").text
    [older] = re.findall(r'rel="next" href="([^"]+)"', first)
    second = his_browser.get(older.replace("&amp;", "&")).text

    assert (shown(first), badge(first)) == (["susan 3", "susan 2"], "1")
    assert (shown(second), badge(second)) == (["susan 1"], None)


def test_a_conversation_has_what_two_wrote_to_each_other_page_by_page(
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
    while page.older:
        page = services.messages_between(susan, miguel, before=page.older)
        down += [message.body.split()[1] for message in page.items]
    up = [message.body.split()[1] for message in page.items]
    while page.newer:
        page = services.messages_between(susan, miguel, after=page.newer)
        up = [number for message in page.items if (number := message.body.split()[1]) not in up] + up

    assert down == up == list("987654321")
    assert unread(susan)["messages"] == 5
    assert shown(browser.get("/send_message/miguel").text) == ["susan 9", "miguel 8", "susan 7"]
    assert unread(susan)["messages"] == 4


def test_whoever_deletes_a_message_no_longer_has_it_and_the_other_does(
    browser: FlaskClient, his_browser: FlaskClient, susan: User, miguel: User
) -> None:
    message = services.send_message(susan, miguel, "Hello")
    delete = f"/messages/{message.id}/delete"

    question = browser.get(delete, headers={"Referer": "http://localhost/messages/sent"}).text
    assert "Delete this message?" in question
    assert 'name="next" value="/messages/sent"' in question
    assert browser.post(delete, data={"next": "/messages/sent"}).location == "/messages/sent"
    assert browser.get(delete).status_code == browser.post(delete).status_code == 404
    assert [shown(browser.get(page).text) for page in ("/messages/sent", "/send_message/miguel")] == [[], []]
    assert unread(miguel) == {"messages": 1, "notifications": 1}

    assert his_browser.post(delete).status_code == 302
    assert unread(miguel) == {"messages": 0, "notifications": 0}
    assert count(Message) == 0


def test_the_greatest_number_in_an_address_is_no_error(browser: FlaskClient) -> None:
    for number in ("2147483647", "2147483648", "9" * 40):
        assert browser.get(f"/messages/{number}/delete").status_code == 404
        assert browser.post(f"/messages/{number}/delete").status_code in (404, 405)
        assert browser.get(f"/notifications/{number}").status_code == 404
    for page in ("/messages", "/notifications/all", "/explore"):
        assert browser.get(f"{page}?before=2026-01-01T00:00:00.000000Z_999999999999999999").status_code == 200


@pytest.mark.parametrize("who", ["susan", "miguel"])
def test_messages_go_with_either_of_the_two(susan: User, miguel: User, who: str) -> None:
    services.send_message(susan, miguel, "Hello")
    services.send_message(miguel, susan, "Hello")

    db.session.execute(sa.delete(User).where(User.username == who))
    db.session.commit()

    assert count(Message) == count(Notification) == 0


def test_a_message_to_somebody_who_has_just_gone_is_not_sent(susan: User, miguel: User) -> None:
    gone = User(id=miguel.id, username="miguel")
    db.session.execute(sa.delete(User).where(User.id == miguel.id))
    db.session.commit()

    with pytest.raises(services.RecipientUnavailable):
        services.send_message(susan, gone, "Hello")
    assert count(Message) == 0


def test_what_is_kept_is_not_called_lost_if_the_database_goes_away_right_after(
    app: Flask, browser: FlaskClient, his_browser: FlaskClient, susan: User, miguel: User
) -> None:
    def go_away(session: object) -> None:
        sa.event.listen(db.engine, "before_cursor_execute", be_away)

    def be_away(connection: object, cursor: object, statement: str, *rest: object) -> None:
        raise sa.exc.OperationalError(statement, {}, OSError("gone"))

    answers = []
    for path, data in (("/", {"post": "Kept"}), ("/send_message/miguel", {"message": "Kept"})):
        sa.event.listen(db.session, "after_commit", go_away)
        try:
            answers.append(browser.post(path, data=data))
        finally:
            sa.event.remove(db.session, "after_commit", go_away)
            sa.event.remove(db.engine, "before_cursor_execute", be_away)

    assert [(answer.status_code, answer.location) for answer in answers] == [(302, "/"), (302, "/send_message/miguel")]
    assert shown(his_browser.get("/messages").text) == ["Kept"]
    assert db.session.scalars(sa.select(Post.body)).all() == ["Kept"]


def test_what_is_sent_while_another_message_is_read_is_told_of(
    susan: User, miguel: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = services.unread_from
    first = services.send_message(miguel, susan, "First")

    def send_meanwhile(reader_id: int, sender_ids: Iterable[int]) -> dict[int, int]:
        found = counted(reader_id, sender_ids)
        db.session.add(Message(sender_id=miguel.id, recipient_id=susan.id, body="Second"))
        notify(susan.id, services.KIND, str(miguel.id), actor_id=miguel.id)
        return found

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(services, "unread_from", send_meanwhile)
        assert services.mark_messages_read(susan, [first]) == {first.id}

    assert unread(susan) == {"messages": 1, "notifications": 1}
    services.mark_messages_read(susan, db.session.scalars(sa.select(Message)))
    assert unread(susan) == {"messages": 0, "notifications": 0}


def test_the_unread_count_is_one_look_into_an_index_however_many_messages_there_are(
    susan: User, miguel: User, database: str
) -> None:
    read = {"sender_id": susan.id, "recipient_id": miguel.id, "body": "Old", "read_at": utcnow()}
    db.session.execute(sa.insert(Message), [read | {"timestamp": BEGINNING} for _ in range(3000)])
    add_messages(susan, miguel, *range(unread_counts.MOST + 20))
    if database == "postgresql":
        db.session.execute(sa.text("ANALYZE"))
    statements: list[tuple[str, object]] = []

    def note(connection: object, cursor: object, statement: str, parameters: object, *rest: object) -> None:
        statements.append((statement, parameters))

    user_id = miguel.id
    sa.event.listen(db.engine, "before_cursor_execute", note)
    number = services.unread_message_count(user_id)
    sa.event.remove(db.engine, "before_cursor_execute", note)

    [(statement, parameters)] = statements
    explain = "EXPLAIN QUERY PLAN " if database == "sqlite" else "EXPLAIN "
    plan = "\n".join(str(row) for row in db.session.connection().exec_driver_sql(explain + statement, parameters))
    assert number == unread_counts.MOST
    assert "ix_message_unread" in plan
