"""The demo data: any amount, the same for the same seed, written in few statements."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from werkzeug.security import check_password_hash

from microblog.accounts.models import MAX_ABOUT_ME, Follow, User
from microblog.demo.seed import BOOKS, CORRESPONDENTS, MESSAGE_PERIOD, NEW_FOLLOWERS, UNANSWERED, fill_database
from microblog.extensions import db
from microblog.messages.models import Message
from microblog.notifications import renderers, unread_counts
from microblog.notifications.models import Notification
from microblog.notifications.services import notifications_of
from microblog.posts import language_detection
from microblog.posts.models import MAX_POST, Post
from tests.support import not_none
from tests.support.databases import Statement

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def build(app: Flask) -> Callable[..., list[list[Any]]]:
    """Return a function that fills an empty database and returns its contents without passwords."""

    def build_one(users: int = 20, posts: int = 1000, seed: int = 1) -> list[list[Any]]:
        for table in (Follow, Post, User):
            db.session.execute(sa.delete(table))
        db.session.commit()
        fill_database("demo", "demo", users=users, posts=posts, seed=seed, now=NOW)
        return contents()

    return build_one


def contents() -> list[list[Any]]:
    author = sa.select(User.username).where(User.id == Post.user_id).scalar_subquery()
    follower = sa.select(User.username).where(User.id == Follow.follower_id).scalar_subquery()
    followed = sa.select(User.username).where(User.id == Follow.followed_id).scalar_subquery()
    recipient = sa.select(User.username).where(User.id == Notification.user_id).scalar_subquery()
    in_order_of_ids = (Follow.follower_id, Follow.followed_id)  # several rows have the same time
    queries = (
        sa.select(User.username, User.about_me, User.created_at, User.last_seen_at).order_by(User.id),
        sa.select(author, Post.body, Post.language, Post.timestamp).order_by(Post.id),
        sa.select(follower, followed, Follow.created_at).order_by(Follow.created_at, *in_order_of_ids),
        sa.select(Message.body, Message.timestamp, Message.read_at).order_by(Message.id),
        sa.select(recipient, Notification.name, Notification.timestamp).order_by(Notification.id),
    )
    return [list(map(tuple, db.session.execute(query))) for query in queries]


def test_same_seed_creates_same_data(build: Callable[..., list[list[Any]]]) -> None:
    first = build(seed=1)

    assert build(seed=1) == first
    other = build(seed=2)
    assert [a == b for a, b in zip(first, other, strict=True)] == [False] * 5


def test_data_has_requested_amounts(build: Callable[..., list[list[Any]]]) -> None:
    for users, posts, of_demo in ((1, 30, 30), (2, 400, 250), (40, 100, 100), (30, 1200, 250)):
        people, written, follows, *_waiting = build(users=users, posts=posts)

        assert (len(people), len(written)) == (users, posts)
        assert sum(author == "demo" for author, *_rest in written) == of_demo
        assert len({body for _author, body, *_rest in written}) == posts
        times = [time for *_rest, time in written]
        assert times == sorted(times)
        assert times[-1] <= NOW
        assert all(follower != followed for follower, followed, _time in follows)


def test_users_write_and_reply_in_four_languages(build: Callable[..., list[list[Any]]]) -> None:
    people, written, follows, *_waiting = build(users=13, posts=800)

    languages = Counter(tag for _author, _body, tag, _time in written)
    assert languages.keys() == {"en", "es", "ko", "ru"}
    assert min(languages.values()) > 80
    language_of = {author: tag for author, _body, tag, _time in written}
    answers = [(author, body.split()[0][1:]) for author, body, *_rest in written if body.startswith("@")]
    assert len(answers) > 100
    assert all(language_of[author] == language_of[name] and author != name for author, name in answers)
    assert all(about for _name, about, *_times in people)
    assert len({follower for follower, *_rest in follows}) == 13


def test_demo_user_has_unread_messages_and_notifications(build: Callable[..., list[list[Any]]], app: Flask) -> None:
    _people, _written, _follows, messages, _notifications = build(users=13, posts=10)

    demo = not_none(User.with_username("demo"))
    assert unread_counts.unread_counts(demo.id)["messages"] == UNANSWERED
    assert UNANSWERED < unread_counts.unread_counts(demo.id)["notifications"] <= UNANSWERED + NEW_FOLLOWERS
    assert all(NOW - MESSAGE_PERIOD * 2 < time < NOW for _body, time, _read in messages)
    with app.test_request_context():
        page = notifications_of(demo.id).items
        assert len(renderers.render_notifications(page)) == len(page) > CORRESPONDENTS


def test_no_activity_after_last_seen_at(build: Callable[..., list[list[Any]]]) -> None:
    build(users=40, posts=1000)

    for actor_id, at in (
        (Post.user_id, Post.timestamp),
        (Message.sender_id, Message.timestamp),
        (Follow.follower_id, Follow.created_at),
    ):
        unseen = sa.select(sa.func.count()).where(actor_id == User.id, User.last_seen_at < at)
        assert db.session.scalar(unseen) == 0
    assert not_none(db.session.scalar(sa.select(sa.func.max(User.last_seen_at)))) <= NOW


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.language)
def test_messages_are_complete_sentences(book: Any) -> None:
    assert len(book.direct_messages) * len(BOOKS) >= CORRESPONDENTS
    for text in itertools.chain(*book.direct_messages):
        assert text[-1] in ".!?"
        assert language_detection.detect_language(text) in (book.language, None)


@pytest.mark.exhaustive
def test_statements_do_not_grow_with_posts(build: Callable[..., list[list[Any]]], statements: list[Statement]) -> None:
    build(users=100, posts=100)
    few = len(statements)
    statements.clear()

    build(users=100, posts=10_000)

    assert len(statements) <= few + 1


def test_only_demo_user_can_log_in(build: Callable[..., list[list[Any]]]) -> None:
    build(users=13, posts=0)

    query = sa.select(User.username, User.password_hash)
    hashes = {row.username: row.password_hash for row in db.session.execute(query)}

    assert check_password_hash(hashes.pop("demo"), "demo")
    assert not any(check_password_hash(one, guess) for one in hashes.values() for guess in ("", "demo"))


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.language)
def test_longest_texts_fit_into_a_post(book: Any) -> None:
    longest = [max(map(len, parts)) for parts in (book.openings + book.answers, book.thoughts, book.closings)]

    assert sum(longest) + len(" " * 2 + "@ miguel12345 (99)") <= MAX_POST
    assert all(len(set(parts)) == len(parts) >= 25 for parts in (book.openings, book.answers, book.thoughts))
    assert all(len(person.about_me) <= MAX_ABOUT_ME for person in book.people)


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.language)
def test_texts_are_in_language_of_book(book: Any) -> None:
    rng = random.Random(1)
    texts = [*itertools.islice(book.posts(rng), 200), *itertools.islice(book.replies(rng), 200)]

    detected = Counter(map(language_detection.detect_language, texts))

    assert detected.keys() <= {book.language, None}
    assert detected[book.language] > 390


def test_posts_of_a_book_are_unique() -> None:
    book = BOOKS[0]
    size = len(book.openings) * len(book.thoughts) * len(book.closings)

    texts = list(itertools.islice(book.posts(random.Random(3)), 2 * size))

    assert len(set(texts)) == 2 * size


def test_different_amount_refused_if_data_exists(app: Flask) -> None:
    app.config["MICROBLOG_ENV"] = "development"
    run = app.test_cli_runner().invoke

    assert run(args=["demo", "--users", "5", "--posts", "300"]).exit_code == 0
    refused = run(args=["demo", "--posts", "301"])
    again = run(args=["demo"])

    assert (refused.exit_code, again.exit_code) == (1, 0)
    assert "empty database" in refused.output
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Post)) == 300


@pytest.mark.both_databases
def test_more_posts_are_copies_written_last(app: Flask) -> None:
    app.config["MICROBLOG_ENV"] = "development"
    run = app.test_cli_runner().invoke
    refused = run(args=["demo", "--more", "1000"])
    run(args=["demo", "--users", "5", "--posts", "300"])
    ids = set(db.session.scalars(sa.select(Post.id)))

    added = run(args=["demo", "--more", "1000"])

    assert (refused.exit_code, added.exit_code) == (1, 0)
    posts = db.session.scalars(sa.select(Post).order_by(Post.timestamp, Post.id)).unique().all()
    assert {post.id for post in posts[:300]} == ids
    assert len(posts) == 1300
    assert {post.author.username for post in posts[300:]} == {"demo"}
    assert all(post.terms and post.body for post in posts)


def test_taken_username_is_reported(app: Flask, make_user: Callable[..., User]) -> None:
    make_user("susan")
    app.config["MICROBLOG_ENV"] = "development"

    refused = app.test_cli_runner().invoke(args=["demo"])

    assert refused.exit_code == 1
    assert "Nothing was added" in refused.output
    assert User.with_username("demo") is None
