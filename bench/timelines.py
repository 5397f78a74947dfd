"""Home, explore and a profile: 1,000,000 posts ÷ 10,000 posts, and how many queries each takes."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from statistics import median

import sqlalchemy as sa
from flask import Flask

from bench.figures import Figure, compare, state
from bench.house import House, add_users, session_cookie
from microblog.accounts.models import Follow
from microblog.extensions import db
from microblog.posts.models import Post

USERS, FOLLOWED = 1_000, 200
SMALL, LARGE = 10_000, 1_000_000
ROUNDS = 60
BATCH = 20_000
PAGES = {"home": "/", "explore": "/explore", "profile": "/user/u1"}


def run(house: House) -> Iterator[Figure]:
    """Two figures for each page and database."""
    for database in house.databases:
        spent, queries = {}, {}
        for posts in (SMALL, LARGE):
            with house.app(house.environment(database)) as app:
                reader = _fill(posts)
                for page, path in PAGES.items():
                    spent[page, posts], queries[page, posts] = _measure(app, reader, path)
        for page in PAGES:
            what = f"{page}, {database}: {LARGE:,} posts ÷ {SMALL:,}"
            yield compare(what, spent[page, LARGE], spent[page, SMALL], "ms", at_most=1.5)
            yield state(
                f"{page}, {database}: queries at {LARGE:,} posts",
                queries[page, LARGE],
                "",
                at_most=queries[page, SMALL],
            )


def _fill(posts: int) -> int:
    """Users, posts of random ones, and a reader who follows many; returns the reader's id."""
    chance = random.Random(posts)
    reader, *others = users = add_users(USERS)
    beginning = datetime(2025, 1, 1, tzinfo=UTC)
    for first in range(0, posts, BATCH):
        rows = [
            {"body": f"Post {n}", "timestamp": beginning + timedelta(seconds=n), "user_id": chance.choice(users)}
            for n in range(first, min(first + BATCH, posts))
        ]
        db.session.execute(sa.insert(Post), rows)
    followed = chance.sample(others, FOLLOWED)
    db.session.execute(sa.insert(Follow), [{"follower_id": reader, "followed_id": other} for other in followed])
    db.session.commit()
    if db.engine.dialect.name == "postgresql":  # as autovacuum does it
        db.session.execute(sa.text("ANALYZE"))
        db.session.commit()
    return reader


def _measure(app: Flask, reader: int, path: str) -> tuple[float, int]:
    """The median milliseconds of a request, and its queries."""
    browser = app.test_client(use_cookies=False)
    headers = {"Cookie": session_cookie(app, reader)}
    queries: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        queries.append(statement)

    spent = []
    for _round in range(ROUNDS):
        began = time.perf_counter()
        answer = browser.get(path, headers=headers)
        spent.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200:
            raise RuntimeError(answer.status)
    sa.event.listen(db.engine, "before_cursor_execute", note)
    browser.get(path, headers=headers)
    sa.event.remove(db.engine, "before_cursor_execute", note)
    return median(spent), len(queries)
