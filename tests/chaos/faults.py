"""The faults of each kind."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psycopg
import redis
import sqlalchemy as sa
from celery import Signature, chain
from flask import Flask
from kombu.exceptions import OperationalError
from sqlalchemy.exc import DBAPIError

from microblog.development.process_manager import ManagedProcess, poll_until
from microblog.exports.services import export_job
from microblog.extensions import db
from microblog.storage import PARTS
from microblog.taskqueue.celery_settings import QUEUES
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.chaos.deployment import Deployment
from tests.chaos.load import Load, add_users
from tests.chaos.schedule import PlannedFault
from tests.support.external import shifted_clock
from tests.support.servers import REFUSALS, Postgres

BACKLOG = 100  # jobs that are launched at once
CONDITION_TIMEOUT = 10.0  # seconds that a fault waits for the condition under which it occurs


class ConditionNotMet(Exception):
    """The condition of a fault was not met in time."""


@dataclass
class Occurrence:
    """A fault that occurred, and its begin and end."""

    fault: PlannedFault
    began: float
    ended: float = field(default=float("inf"))


class Faults:
    """Injects faults, each in its own thread, and records them."""

    def __init__(self, system: Deployment, load: Load, app: Flask) -> None:
        self.injected: list[Occurrence] = []
        self.not_injected: list[str] = []
        self._system = system
        self._load = load
        self._app = app
        self._threads: list[threading.Thread] = []
        # The end of a fault would end another fault of the same service.
        self._smtp, self._redis, self._database, self._frozen, self._beat = (threading.Lock() for _ in range(5))

    def run(self, faults: list[PlannedFault]) -> None:
        """Inject each fault at its time, and return when the last has ended."""
        began = time.monotonic()
        for fault in faults:
            time.sleep(max(0.0, began + fault.at - time.monotonic()))
            thread = threading.Thread(target=self._inject, args=[fault], name=str(fault))
            thread.start()
            self._threads.append(thread)
        for thread in self._threads:
            thread.join()

    def of(self, *kinds: str) -> list[Occurrence]:
        """Return the faults of these kinds that occurred."""
        return [occurrence for occurrence in self.injected if occurrence.fault.kind in kinds]

    def _inject(self, fault: PlannedFault) -> None:
        occurrence = Occurrence(fault, time.time())
        self.injected.append(occurrence)
        try:
            with self._app.app_context():
                getattr(self, fault.kind)(fault.length, random.Random(fault.seed))
        except ConditionNotMet:
            self.injected.remove(occurrence)
        except Exception as error:  # a run without the fault proves nothing
            self.not_injected.append(f"{fault} did not happen: {error!r}")
        occurrence.ended = time.time()

    def kill_child(self, length: float, rng: random.Random) -> None:
        """Kill (SIGKILL) one child process of a worker."""
        children = rng.choice(self._system.workers).children()
        if children:
            _kill(rng.choice(children))

    def kill_exporting_child(self, length: float, rng: random.Random) -> None:
        """Kill (SIGKILL) the next child process that writes an archive."""
        _worker, child = self._exporting()
        _kill(child)

    def kill_mailing_child(self, length: float, rng: random.Random) -> None:
        """Kill (SIGKILL) the next child process that sends a mail, before or just after the server accepts it."""
        met = threading.Event()
        after = rng.uniform(0, 2 * self._system.smtp.delay)

        def schedule_kill(port: int) -> None:
            self._system.smtp.on_data = None
            sockets = set(_sockets(port))
            owner = _find_child(lambda link: link in sockets, self._system.workers)
            if owner is not None:
                threading.Timer(after, _kill, [owner[1]]).start()
            met.set()

        self._system.smtp.on_data = schedule_kill
        if not met.wait(CONDITION_TIMEOUT):
            self._system.smtp.on_data = None
            raise ConditionNotMet
        time.sleep(after)

    def kill_worker(self, length: float, rng: random.Random) -> None:
        """Kill (SIGKILL) a whole worker."""
        rng.choice(self._system.workers).signal_group(signal.SIGKILL)

    def stop_worker(self, length: float, rng: random.Random) -> None:
        """Stop (SIGTERM) the process group of a worker, as systemd does, which is no crash."""
        rng.choice(self._system.workers).signal_group(signal.SIGTERM)

    def kill_web(self, length: float, rng: random.Random) -> None:
        """Kill (SIGKILL) the worker process of the web server, or the whole web server."""
        children = self._system.web.children()
        if children and rng.random() < 0.5:
            _kill(children[0])
        else:
            self._system.web.signal_group(signal.SIGKILL)

    def kill_beat(self, length: float, rng: random.Random) -> None:
        """Kill (SIGKILL) beat."""
        self._system.beat.signal_group(signal.SIGKILL)

    def freeze_worker(self, length: float, rng: random.Random) -> None:
        """Stop (SIGSTOP) a whole worker for longer than a lease."""
        self._freeze(rng.choice(self._system.workers), length)

    def freeze_exporting_worker(self, length: float, rng: random.Random) -> None:
        """Stop (SIGSTOP) the next worker that writes an archive."""
        worker, _child = self._exporting()
        self._freeze(worker, length)

    def restart_redis(self, length: float, rng: random.Random) -> None:
        """Kill Redis, and start it again with its data."""
        with self._redis:
            self._system.redis.stop()
            time.sleep(length)
            self._system.redis.start()

    def empty_redis(self, length: float, rng: random.Random) -> None:
        """Kill Redis, and start it again without its data."""
        with self._redis:
            self._system.redis.stop()
            shutil.rmtree(self._system.redis_folder)
            time.sleep(length)
            self._system.redis.start()

    def redis_refuses(self, length: float, rng: random.Random) -> None:
        """Let Redis refuse to write, as in a failover, without memory or without replicas."""
        with self._redis, self._system.redis.refusing(rng.choice(list(REFUSALS))):
            time.sleep(length)

    def smtp_refuses(self, length: float, rng: random.Random) -> None:
        """Let the SMTP server reply 451."""
        self._change_smtp(length, answer="451 4.3.0 Try again later")

    def smtp_hangs(self, length: float, rng: random.Random) -> None:
        """Let the SMTP server read mails without replying."""
        self._change_smtp(length, hang=True)

    def smtp_drops(self, length: float, rng: random.Random) -> None:
        """Let the SMTP server close the connection after DATA."""
        self._change_smtp(length, drop=True)

    def database_refuses(self, length: float, rng: random.Random) -> None:
        """Let the database refuse to write, perhaps for longer than a lease. SQLite: hold the write lock."""
        if self._system.sqlite is None:
            with self._database, self._postgres.read_only(self._system.database_name):
                time.sleep(length)
            return
        with self._database, contextlib.closing(sqlite3.connect(self._system.sqlite, timeout=30)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(length)
            connection.rollback()

    def interrupt_database(self, length: float, rng: random.Random) -> None:
        """Terminate all connections to PostgreSQL, twice."""
        for pause in (length, 0):
            with contextlib.suppress(psycopg.OperationalError):
                self._postgres.cut_connections(self._system.database_name)
            time.sleep(pause)

    def move_database(self, length: float, rng: random.Random) -> None:
        """Let the host of PostgreSQL vanish without a word, until another takes over its address."""
        assert self._system.proxy is not None
        with self._database, self._system.proxy.host_gone():
            time.sleep(length)

    def few_connections(self, length: float, rng: random.Random) -> None:
        """Let PostgreSQL refuse more connections than some processes need."""
        with self._database, self._postgres.limited(self._system.database_name, rng.randint(2, 4)):
            time.sleep(length)

    def copy_messages(self, length: float, rng: random.Random) -> None:
        """Duplicate messages in the queues."""
        deadline, copied, client = time.monotonic() + CONDITION_TIMEOUT, 0, self._system.redis.client
        while not copied and time.monotonic() < deadline:
            with contextlib.suppress(redis.RedisError):
                for queue in QUEUES:
                    key = client.key(queue)
                    for message in client.lrange(key, 0, 5):
                        client.rpush(key, marked_copy(str(message), new_tag=rng.random() < 0.5))
                        copied += 1
            time.sleep(0.01)

    def publish_rows_again(self, length: float, rng: random.Random) -> None:
        """Publish messages of the newest jobs, finished or not, again."""
        with contextlib.suppress(DBAPIError, OperationalError, redis.RedisError, OSError):
            for root in db.session.scalars(
                sa.select(Task).where(Task.position == 0).order_by(Task.created_at.desc()).limit(8)
            ).all():
                _publish_again(root, rng)

    def duplicate_requests(self, length: float, rng: random.Random) -> None:
        """Let several users request two exports at the same time."""
        for user in rng.sample(self._load.users, 5):
            self._load.request_export_twice(user)

    def backlog(self, length: float, rng: random.Random) -> None:
        """Launch an export for each of many new users at once, more than the workers do within GRACE of reconcile."""
        name = f"visitor-{rng.getrandbits(32)}"
        try:
            for user_id in add_users({f"{name}-{number}": 1 for number in range(BACKLOG)}):
                launch(export_job(user_id), user_id=user_id)
            db.session.commit()
        except DBAPIError as error:
            raise ConditionNotMet from error

    def old_worker(self, length: float, rng: random.Random) -> None:
        """Run another worker, of a release without one of the two tasks of an export."""
        missing = rng.choice(("export_posts", "email_export"))
        name = f"without-{missing}-{rng.getrandbits(32)}"
        with self._system.worker(name, "tests.support.old_release", MISSING_TASKS=missing):
            time.sleep(length)

    def skewed_worker(self, length: float, rng: random.Random) -> None:
        """Run another worker, whose clock is a minute ahead or behind."""
        offset = rng.choice(("+60s", "-60s"))
        with self._system.worker(f"skewed{offset}-{rng.getrandbits(32)}", **shifted_clock(offset)):
            time.sleep(length)

    def clock_set_back(self, length: float, rng: random.Random) -> None:
        """Restart beat with a clock that is an hour behind or ahead: it is set back at the begin or at the end."""
        with self._beat, self._system.replaced_beat(**shifted_clock(rng.choice(("-1h", "+1h")))):
            time.sleep(length)

    @property
    def _postgres(self) -> Postgres:
        assert self._system.postgres is not None
        return self._system.postgres

    def _freeze(self, worker: ManagedProcess, length: float) -> None:
        with self._frozen:
            worker.signal_group(signal.SIGSTOP)
            time.sleep(length)
            worker.signal_group(signal.SIGCONT)

    def _exporting(self) -> tuple[ManagedProcess, int]:
        """Return the next worker that writes an archive, and the child process that does it. Raises ConditionNotMet."""
        parts, workers = f"/{PARTS}/", self._system.workers
        owner = poll_until(lambda: _find_child(lambda link: parts in link, workers), CONDITION_TIMEOUT, interval=0.002)
        if owner is None:
            raise ConditionNotMet
        return owner

    def _change_smtp(self, length: float, **behaviour: Any) -> None:
        with self._smtp:
            vars(self._system.smtp).update(behaviour)
            time.sleep(length)
            self._system.smtp.behave()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def marked_copy(message: str, *, new_tag: bool) -> str:
    """Return a marked copy; with a new delivery tag it counts as a second message, not as a redelivery."""
    copy = orjson.loads(message)
    copy["headers"]["copied"] = True
    if new_tag:
        copy["properties"]["delivery_tag"] += "-again"
    return orjson.dumps(copy).decode()


def _publish_again(root: Task, rng: random.Random) -> None:
    steps = db.session.scalars(sa.select(Task).where(Task.root_id == root.id).order_by(Task.position)).all()
    if root.result is not None and rng.random() < 0.5:
        Signature.from_dict(steps[1].signature).apply_async((root.result,))
    else:
        chain(*(Signature.from_dict(step.signature) for step in steps)).apply_async()


def _find_child(matches: Callable[[str], bool], workers: list[ManagedProcess]) -> tuple[ManagedProcess, int] | None:
    """Return a worker and its child process with an open file or socket whose link in /proc `matches`, or None."""
    for worker in workers:
        for child in worker.children():
            with contextlib.suppress(OSError):
                for open_file in os.listdir(f"/proc/{child}/fd"):
                    if matches(os.readlink(f"/proc/{child}/fd/{open_file}")):
                        return worker, child
    return None


def _sockets(port: int) -> Iterator[str]:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if int(columns[1].rpartition(":")[2], 16) == port:
            yield f"socket:[{columns[9]}]"
