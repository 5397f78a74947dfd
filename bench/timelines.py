"""Home, explore, a profile and searches: 1,000,000 posts ÷ 10,000 posts, and the number of queries of each page.

Both sizes are measured in turns, so that other load on the machine affects both. Two searches have no target, and a
third has none on PostgreSQL: their time grows with the number of posts (search/find.py).
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from flask import Flask

from bench.figures import Figure, compare, side_by_side, state
from bench.servers import Servers, add_users, session_cookie
from microblog.accounts.models import Follow
from microblog.extensions import db
from microblog.posts.models import Post
from tests.support.databases import recorded_statements

USERS, FOLLOWED = 1_000, 200
SMALL, LARGE = 10_000, 1_000_000
ROUNDS = 60
BATCH = 20_000
RARE, COMMON, BETWEEN = "heliotrope", "weather", "tramway"
BEHIND, APART = "forecast", "harvest"  # follows each COMMON; is in all posts without COMMON
RARE_POSTS = 20  # posts with the rare word, at both sizes
BETWEEN_EVERY = 100  # one in so many posts has the word BETWEEN, whose number grows with that of posts
PAGES = {
    "home": "/",
    "explore": "/explore",
    "profile": "/user/u1",
    "search, a rare word": f"/search?q={RARE}",
    "search, a word in every second post": f"/search?q={COMMON}",
    "search, both": f"/search?q={COMMON}+{RARE}",
    f"search, a word in every {BETWEEN_EVERY}th post": f"/search?q={BETWEEN}",
}
WITHOUT_TARGET = {
    "search, two words never in one post": f"/search?q={COMMON}+{APART}",
    "search, a phrase that never occurs": f"/search?q=%22{BEHIND}+{COMMON}%22",
}
WITHOUT_TARGET_ON = {"PostgreSQL": f"/search?q={BETWEEN}"}


def run(servers: Servers) -> Iterator[Figure]:
    """Yield two figures for each page and database."""
    for database in servers.databases:
        with (
            servers.app(servers.environment(database)) as small,
            servers.app(servers.environment(database)) as large,
        ):
            readers = []
            for app, posts in ((small, SMALL), (large, LARGE)):
                with app.app_context():
                    readers.append(_Reader(app, _fill(posts)))
            for page, path in (PAGES | WITHOUT_TARGET).items():
                bounded = page in PAGES and path != WITHOUT_TARGET_ON.get(database)
                yield from _compare(f"{page}, {database}", path, *readers, bounded=bounded)


def _compare(what: str, path: str, small: _Reader, large: _Reader, *, bounded: bool) -> Iterator[Figure]:
    for reader in (small, large):
        reader.milliseconds(path)  # the first request reads from disk
    large_spent, small_spent = side_by_side(
        lambda: large.milliseconds(path), lambda: small.milliseconds(path), rounds=ROUNDS
    )
    sizes = f"{what}: {LARGE:,} posts ÷ {SMALL:,}"
    yield compare(sizes, large_spent, small_spent, "ms", at_most=1.5 if bounded else None)
    queries = [reader.queries(path) for reader in (small, large)]
    yield state(f"{what}: queries at {LARGE:,} posts", queries[1], "", at_most=queries[0])


class _Reader:
    """The browser of a signed-in user."""

    def __init__(self, app: Flask, user_id: int) -> None:
        self._app = app
        self._browser = app.test_client(use_cookies=False)
        self._headers = {"Cookie": session_cookie(app, user_id)}

    def milliseconds(self, path: str) -> float:
        """Return the duration of a request. Raises RuntimeError unless its status is 200."""
        with self._app.app_context():  # the current one may belong to the other app
            began = time.perf_counter()
            response = self._browser.get(path, headers=self._headers)
            spent = (time.perf_counter() - began) * 1000
        if response.status_code != 200:
            raise RuntimeError(response.status)
        return spent

    def queries(self, path: str) -> int:
        """Return the number of queries of a request."""
        with self._app.app_context(), recorded_statements() as statements:
            self._browser.get(path, headers=self._headers)
        return len(statements)


def _fill(posts: int) -> int:
    """Add users, posts of random users, and a reader who follows many of them. Return the reader's id."""
    rng = random.Random(posts)
    reader, *others = users = add_users(USERS)
    beginning = datetime(2025, 1, 1, tzinfo=UTC)
    for first in range(0, posts, BATCH):
        rows = [
            {
                "body": _body(n, posts, rng),
                "timestamp": beginning + timedelta(seconds=n),
                "user_id": rng.choice(users),
            }
            for n in range(first, min(first + BATCH, posts))
        ]
        db.session.execute(sa.insert(Post), rows)
        db.session.commit()
    followed = rng.sample(others, FOLLOWED)
    db.session.execute(sa.insert(Follow), [{"follower_id": reader, "followed_id": other} for other in followed])
    db.session.commit()
    if db.engine.dialect.name == "postgresql":  # as autovacuum does
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE"))
    return reader


def _body(number: int, posts: int, rng: random.Random) -> str:
    words = [f"Post {number}", *(f"word{min(int(rng.expovariate(0.002)), 9999)}" for _word in range(6))]
    words += [COMMON, BEHIND] if number % 2 else [APART]
    if number % (posts // RARE_POSTS) == 1:
        words.append(RARE)
    if number % BETWEEN_EVERY == 0:
        words.append(BETWEEN)
    return " ".join(words)
