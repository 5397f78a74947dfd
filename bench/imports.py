"""An import of a million posts ÷ a bare loop of the same inserts; and the memory that the number of posts costs."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import orjson
import sqlalchemy as sa

from bench.export import WORDS
from bench.figures import Figure, compare, side_by_side, state
from bench.house import OURS, House, add_users, task_has_ended
from bench.processes import MEGABYTE, children, peak_of
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.imports.models import Upload
from microblog.imports.tasks import import_posts
from microblog.posts.language import detect
from microblog.posts.models import Post
from microblog.posts.terms import indexed
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support.services import wait_for

MANY, FEW = 1_000_000, 10_000
ROUNDS = 3


def run(house: House) -> Iterator[Figure]:
    """The two figures, from imports by a real worker; each into the account of a user who has no posts yet."""
    environment = house.environment("SQLite")
    instance = Path(environment["INSTANCE_PATH"])
    many, few = house.folder / "many.json", house.folder / "few.json"
    _write_posts(many, MANY)
    _write_posts(few, FEW)
    with house.app(environment), house.worker(environment, OURS, queue="exports", concurrency=1) as worker:
        users = iter(add_users(2 * ROUNDS + 4))
        [process] = children(worker)
        peak_of_few = peak_of(process, lambda: _import(few, next(users), instance))
        peak_of_many = peak_of(process, lambda: _import(many, next(users), instance))
        ours, raw = side_by_side(
            lambda: _import(many, next(users), instance),
            lambda: _bare_loop(many, next(users), instance),
            rounds=ROUNDS,
        )
    yield compare(f"import of {MANY:,} posts, SQLite: wall time ÷ bare loop of the inserts", ours, raw, "s", at_most=4)
    yield state(
        f"import: peak memory at {MANY:,} minus at {FEW:,} posts",
        (peak_of_many - peak_of_few) / MEGABYTE,
        "MB",
        at_most=16,
    )


def _import(file: Path, user_id: int, instance: Path) -> float:
    """Seconds from the claim to the mirrored result of one import, of which every post must have come in."""
    upload = Upload(user_id=user_id, expires_at=utcnow() + timedelta(days=1))
    db.session.add(upload)
    db.session.commit()
    target = instance / "imports" / upload.path
    target.parent.mkdir(exist_ok=True)
    shutil.copy(file, target)
    task_id = launch([import_posts.s(user_id, upload.id)], user_id=user_id).id
    db.session.commit()
    wait_for(lambda: task_has_ended(task_id), timeout=600, what="the import ends")
    task = db.session.get_one(Task, task_id)
    assert task.result is not None, task.traceback
    assert task.started_at is not None
    assert task.finished_at is not None
    kept = db.session.scalar(sa.select(sa.func.count()).where(Post.user_id == user_id))
    assert task.result["imported"] == task.result["read"] == kept
    return (task.finished_at - task.started_at).total_seconds()


def _bare_loop(file: Path, user_id: int, instance: Path) -> float:
    """Seconds that the shortest honest program takes to have the same rows.

    They have a language and words, by which they are found. To keep the words costs the loop what it costs the import;
    what they are it is told, so that finding that out counts as ours. An import that left them to index_posts would be
    quicker here, and slower in all: each row would be written twice, and for a while nobody would find the posts.
    """
    known = {body: (detect(body), indexed(body)) for body in {post["body"] for post in _posts(file)}}
    began = time.perf_counter()
    rows = (
        (post["body"], post["timestamp"].replace("T", " ").removesuffix("Z"), user_id, *known[post["body"]])
        for post in _posts(file)
    )
    connection = sqlite3.connect(instance / "microblog.db")
    with connection:
        connection.executemany(
            "INSERT INTO post (body, timestamp, user_id, language, terms) VALUES (?, ?, ?, ?, ?)", rows
        )
    connection.close()
    return time.perf_counter() - began


def _posts(file: Path) -> list[dict[str, str]]:
    posts: list[dict[str, str]] = json.loads(file.read_bytes())["posts"]
    return posts


def _write_posts(file: Path, number: int) -> None:
    """An archive as an export makes it."""
    chance = random.Random(number)
    bodies = [" ".join(chance.choices(WORDS, k=chance.randint(1, 22)))[:140] for _ in range(5000)]
    start, pause = datetime(2020, 1, 1, 0, 0, 0, 123457, UTC), timedelta(seconds=150)
    with file.open("wb") as output:
        separator = b'{"posts":[\n'
        for n, body in zip(count(), chance.choices(bodies, k=number), strict=False):
            output.write(separator)
            output.write(orjson.dumps({"body": body, "timestamp": start + n * pause}, option=orjson.OPT_UTC_Z))
            separator = b",\n"
        output.write(b"\n]}\n")
