"""Keyset pagination: each item appears once even if others are added meanwhile, and a page costs one query."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog import pagination
from microblog.accounts.models import User
from microblog.extensions import db
from microblog.posts.models import Post
from tests.support.databases import recorded_statements

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)

pytestmark = pytest.mark.both_databases


@pytest.fixture
def author(make_user: Callable[..., User]) -> User:
    return make_user()


def write(author: User, count: int, every: timedelta = timedelta(minutes=1), start: datetime = NOON) -> None:
    db.session.add_all(Post(body=f"post {n}", timestamp=start + n * every, user_id=author.id) for n in range(count))
    db.session.commit()


def page(size: int = 10, before: str | None = None, after: str | None = None) -> pagination.Page[Post]:
    return pagination.newest_first(
        sa.select(Post), Post.timestamp, Post.id, pagination.PageRequest(before, after, size)
    )


def bodies(page: pagination.Page[Post]) -> list[str]:
    return [post.body for post in page.items]


def walk_to_end() -> list[pagination.Page[Post]]:
    pages = [page()]
    while pages[-1].next:
        pages.append(page(before=pages[-1].next))
    return pages


def test_walk_shows_every_item_once_newest_first(author: User) -> None:
    for count in (0, 1, 9, 10, 11, 20, 25):
        db.session.execute(sa.delete(Post))
        write(author, count)

        pages = walk_to_end()

        walked = [body for page in pages for body in bodies(page)]
        assert walked == [f"post {n}" for n in reversed(range(count))]


def test_equal_timestamps_are_ordered_by_id(author: User) -> None:
    write(author, 25, every=timedelta(0))

    pages = walk_to_end()

    ids = [post.id for page in pages for post in page.items]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 25


def test_walking_back_shows_same_pages(author: User) -> None:
    write(author, 25)
    forward = walk_to_end()

    backward = [forward[-1]]
    while backward[-1].previous:
        backward.append(page(after=backward[-1].previous))

    assert [bodies(page) for page in reversed(backward)] == [bodies(page) for page in forward]


def test_new_items_do_not_shift_older_pages(author: User) -> None:
    write(author, 20)
    first = page()
    write(author, 3, start=NOON + timedelta(days=1))

    second = page(before=first.next)

    assert bodies(second) == [f"post {n}" for n in reversed(range(10))]


def test_first_page_is_full_and_includes_new_items(author: User) -> None:
    write(author, 20)
    second = page(before=page().next)
    write(author, 3, start=NOON + timedelta(days=1))

    almost_top = page(after=second.previous)
    top = page(after=almost_top.previous)

    assert len(top.items) == 10
    assert bodies(top)[:3] == ["post 2", "post 1", "post 0"]
    assert top.previous is None


def test_page_past_end_is_empty_and_links_back(author: User) -> None:
    write(author, 3)

    beyond = page(before="2001-01-01T00:00:00.000000Z_1")

    assert beyond.items == []
    assert beyond.next is None
    assert len(page(after=beyond.previous).items) == 3


def test_id_may_be_text(author: User, make_user: Callable[..., User]) -> None:
    names = ["ann", "bob", "cid"]
    for name in names:
        make_user(name)
    db.session.execute(sa.update(User).values(created_at=NOON))
    db.session.commit()

    def users(before: str | None = None) -> pagination.Page[User]:
        query = sa.select(User).where(User.username.in_(names))
        return pagination.newest_first(query, User.created_at, User.username, pagination.PageRequest(before, size=2))

    first = users()
    second = users(first.next)

    assert [user.username for user in first.items + second.items] == ["cid", "bob", "ann"]


INVALID_KEYS = [
    "",
    "_",
    "7",
    "yesterday_7",
    "2026-11-21T12:00:00.000000Z",
    "2026-11-21T12:00:00.000000Z_",
    "2026-11-21T12:00:00.000000Z_seven",
    "2026-11-21T12:00:00.000000Z_-1",
    "2026-11-21T12:00:00.000000Z_9999999999999999999",
    "2026-11-21T12:00:00.000000Z_\N{FULLWIDTH DIGIT SEVEN}",
    "2026-02-30T12:00:00.000000Z_7",
    "2026-11-21T12:00:00Z_7",
    "2026-11-21T12:00:00.000000Z_7\n",
    "2026-11-21T12:00:00.000000Z_7\x00",
    "' OR 1=1 --",
]


def test_invalid_key_is_refused_with_sentence(app: Flask) -> None:
    for key in INVALID_KEYS:
        with pytest.raises(pagination.InvalidKey) as raised:
            page(before=key)

        assert raised.value.code == 400
        assert raised.value.description.endswith(".")


def test_before_and_after_exclude_each_other(app: Flask) -> None:
    key = "2026-11-21T12:00:00.000000Z_7"

    with pytest.raises(pagination.InvalidKey):
        page(before=key, after=key)


@pytest.mark.parametrize("back", [False, True])
def test_page_is_one_query_without_count_or_offset(author: User, back: bool) -> None:
    write(author, 25)
    older = page().next
    before, after = (None, page(before=older).previous) if back else (older, None)

    with recorded_statements() as statements:
        items = page(before=before, after=after).items
        authors = {post.author.username for post in items}

    assert authors == {author.username}
    [statement] = statements
    assert "COUNT(" not in statement.sql.upper()
    # SQLAlchemy renders a plain LIMIT for SQLite with OFFSET 0.
    assert "OFFSET" not in statement.sql.upper() or statement.parameters[-1] == 0
