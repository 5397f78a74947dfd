"""An export of a million posts ÷ a bare loop over the same posts, and the memory it needs for more posts."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson

from bench.figures import Figure, compare, side_by_side, state
from bench.processes import MEGABYTE, peak_of
from bench.servers import OURS, Servers, add_users, task_has_ended
from microblog.exports.tasks import export_posts
from microblog.extensions import db
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support.servers import wait_for

MANY, FEW = 1_000_000, 10_000
ROUNDS = 3
WORDS = ["a", "rainy", "tram", "index", "Käse", "lake", "crème", '"sign"', "cat's", "日本", "slow", "heron"]


def run(servers: Servers) -> Iterator[Figure]:
    """Yield both figures, measured from the same exports by a real worker."""
    environment = servers.environment("SQLite")
    database = Path(environment["INSTANCE_PATH"], "microblog.db")
    copy = servers.folder / "posts.json"
    with servers.app(environment), servers.worker(environment, OURS, queue="exports", concurrency=1) as worker:
        writer_of_many, writer_of_few = add_users(2)
        _add_posts(database, writer_of_few, FEW)
        _add_posts(database, writer_of_many, MANY)
        [process] = worker.children()
        few = peak_of(process, lambda: _export(writer_of_few))
        many = peak_of(process, lambda: _export(writer_of_many))
        ours, raw = side_by_side(
            lambda: _export(writer_of_many, like=copy),
            lambda: _bare_loop(database, writer_of_many, copy),
            rounds=ROUNDS,
        )
    yield compare(f"export of {MANY:,} posts, SQLite: wall time ÷ bare loop", ours, raw, "s", at_most=3)
    yield state(
        f"export: peak memory at {MANY:,} minus at {FEW:,} posts",
        (many - few) / MEGABYTE,
        "MB",
        at_most=16,
    )


def _export(user_id: int, like: Path | None = None) -> float:
    """Run one export, whose archive must equal the file `like`. Return the seconds from the claim to the result."""
    task_id = launch(export_posts.s(user_id), user_id=user_id).id
    db.session.commit()
    wait_for(lambda: task_has_ended(task_id), timeout=120, what="the export ends")
    task = db.session.get_one(Task, task_id)
    assert task.result is not None, task.traceback
    assert task.started_at is not None
    assert task.finished_at is not None
    if like is not None and like.exists():
        assert task.result["sha256"] == _sha256(like), "the export and the bare loop wrote different files"
    return (task.finished_at - task.started_at).total_seconds()


def _bare_loop(database: Path, user_id: int, target: Path) -> float:
    """Return the seconds that a minimal program needs to write the same file."""
    began = time.perf_counter()
    connection = sqlite3.connect(database)
    posts = connection.execute("SELECT body, timestamp FROM post WHERE user_id = ? ORDER BY timestamp, id", (user_id,))
    with target.open("wb") as file:
        separator = b'{"posts":[\n'
        for body, timestamp in posts:
            file.write(separator)
            file.write(orjson.dumps({"body": body, "timestamp": timestamp.replace(" ", "T") + "Z"}))
            separator = b",\n"
        file.write(b"\n]}\n")
    connection.close()
    return time.perf_counter() - began


def _add_posts(database: Path, user_id: int, count: int) -> None:
    rng = random.Random(user_id)
    bodies = [" ".join(rng.choices(WORDS, k=rng.randint(1, 22)))[:140] for _ in range(5000)]
    start, pause = datetime(2020, 1, 1, 0, 0, 0, 123457, UTC), timedelta(seconds=150)
    posts = ((rng.choice(bodies), f"{start + n * pause:%Y-%m-%d %H:%M:%S.%f}", user_id) for n in range(count))
    connection = sqlite3.connect(database)
    with connection:
        connection.executemany("INSERT INTO post (body, timestamp, user_id) VALUES (?, ?, ?)", posts)
    connection.close()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
