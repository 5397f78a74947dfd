"""An import of a million posts ÷ a bare loop of the same inserts, and the memory it needs for more posts.

It is measured on each database, for a file in order of time, and for one whose second half is unordered: this is read
a second time from the beginning, and equal posts are counted in a temporary file.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
import sqlalchemy as sa

from bench.export import WORDS
from bench.figures import Figure, compare, side_by_side, state
from bench.processes import MEGABYTE, peak_of
from bench.servers import OURS, Servers, add_users, task_has_ended
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.imports.models import Upload
from microblog.imports.tasks import import_posts
from microblog.posts.language_detection import detect_language
from microblog.posts.models import Post, Terms
from microblog.posts.tokenizer import indexed
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support.servers import wait_for

MANY, FEW = 1_000_000, 10_000  # posts
ROUNDS = 3

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """An import to measure: of a file in order of time or not, into one kind of database."""

    database: str
    in_order: bool

    def __str__(self) -> str:
        return f"{self.database}, in order" if self.in_order else f"{self.database}, unordered"


def run(servers: Servers, *, posts: int = MANY) -> Iterator[Figure]:
    """Yield two figures for each case, measured from imports of `posts` posts by a real worker."""
    for database in servers.databases:
        for in_order in (True, False):
            yield from _measure(servers, Case(database, in_order), posts)


def _measure(servers: Servers, case: Case, many: int) -> Iterator[Figure]:
    """Yield the figures of one case; each import is into the account of a user without posts."""
    environment, few = servers.environment(case.database), min(FEW, many)
    instance = Path(environment["INSTANCE_PATH"])
    file_of_many, file_of_few = instance / "many.json", instance / "few.json"
    _write_posts(file_of_many, many, case.in_order)
    _write_posts(file_of_few, few, case.in_order)
    with servers.app(environment), servers.worker(environment, OURS, queue="exports", concurrency=1) as worker:
        users = iter(add_users(2 * ROUNDS + 4))
        [process] = worker.children()
        peak_of_few = peak_of(process, lambda: _import(file_of_few, next(users), instance))
        peak_of_many = peak_of(process, lambda: _import(file_of_many, next(users), instance))
        ours, raw = side_by_side(
            lambda: _import(file_of_many, next(users), instance),
            lambda: _bare_loop(file_of_many, next(users), environment["DATABASE_URL"]),
            rounds=ROUNDS,
        )
    yield compare(f"import {many:,} posts, {case}: ÷ bare loop", ours, raw, "s", at_most=4)
    more = (peak_of_many - peak_of_few) / MEGABYTE
    yield state(f"import, {case}: memory, {many:,} − {few:,}", more, "MB", at_most=16)


def _import(file: Path, user_id: int, instance: Path) -> float:
    """Run one import. Return the seconds from the claim to the stored result. Every post must have been imported."""
    upload = Upload(user_id=user_id, expires_at=utcnow() + timedelta(days=1))
    db.session.add(upload)
    db.session.commit()
    target = instance / "imports" / upload.path
    target.parent.mkdir(exist_ok=True)
    shutil.copy(file, target)
    task_id = launch(import_posts.s(user_id, upload.id), user_id=user_id).id
    db.session.commit()
    wait_for(lambda: task_has_ended(task_id), timeout=600, what="the import ends")
    task = db.session.get_one(Task, task_id)
    assert task.result is not None, task.traceback
    assert task.started_at is not None
    assert task.finished_at is not None
    stored = db.session.scalar(sa.select(sa.func.count()).where(Post.user_id == user_id))
    assert task.result["imported"] == task.result["read"] == stored
    return (task.finished_at - task.started_at).total_seconds()


def _bare_loop(file: Path, user_id: int, database_url: str) -> float:
    """Return the seconds that a minimal program needs to insert the same rows.

    The rows include the language and the search terms. Storing the terms costs the loop as much as the import; they are
    computed before the measurement, so that computing them counts for the import only. An import that left the terms
    to index_posts would be faster here but slower overall: each row would be written twice, and for a while a search
    would not find the posts.
    """
    bodies = {post["body"] for post in _posts(file)}
    terms = {body: Terms().process_bind_param(indexed(body), db.engine.dialect) for body in bodies}
    columns = {body: (detect_language(body), terms[body]) for body in bodies}
    began = time.perf_counter()
    rows = ((post["body"], post["timestamp"], user_id, *columns[post["body"]]) for post in _posts(file))
    insert = _insert_into_postgres if database_url.startswith("postgresql") else _insert_into_sqlite
    insert(rows, database_url)
    return time.perf_counter() - began


def _insert_into_sqlite(rows: Iterable[Row], database_url: str) -> None:
    connection = sqlite3.connect(database_url.removeprefix("sqlite:///"))
    with connection:
        connection.executemany(
            "INSERT INTO post (body, timestamp, user_id, language, terms) VALUES (?, ?, ?, ?, ?)",
            ((body, at.replace("T", " ").removesuffix("Z"), *rest) for body, at, *rest in rows),
        )
    connection.close()


def _insert_into_postgres(rows: Iterable[Row], database_url: str) -> None:
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO post (body, timestamp, user_id, language, terms) VALUES (%s, %s, %s, %s, %s)",
            rows,
        )


def _posts(file: Path) -> list[dict[str, str]]:
    posts: list[dict[str, str]] = json.loads(file.read_bytes())["posts"]
    return posts


def _write_posts(file: Path, number: int, in_order: bool) -> None:
    """Write an archive as an export does; unless `in_order`, its second half is shuffled."""
    rng = random.Random(number)
    bodies = [" ".join(rng.choices(WORDS, k=rng.randint(1, 22)))[:140] for _ in range(5000)]
    start, pause = datetime(2020, 1, 1, 0, 0, 0, 123457, UTC), timedelta(seconds=150)
    half = number if in_order else number // 2
    order = [*range(half), *rng.sample(range(half, number), number - half)]
    with file.open("wb") as output:
        separator = b'{"posts":[\n'
        for n, body in zip(order, rng.choices(bodies, k=number), strict=True):
            output.write(separator)
            output.write(orjson.dumps({"body": body, "timestamp": start + n * pause}, option=orjson.OPT_UTC_Z))
            separator = b",\n"
        output.write(b"\n]}\n")
