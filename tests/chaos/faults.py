"""What each kind of fault does to the town."""

from __future__ import annotations

import contextlib
import os
import random
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
from kombu.exceptions import OperationalError as BrokerAway
from sqlalchemy.exc import DBAPIError

from microblog.extensions import db
from microblog.storage import PARTS
from microblog.taskqueue.celery_settings import QUEUES
from microblog.taskqueue.models import Task
from tests.chaos.people import People
from tests.chaos.schedule import Fault
from tests.chaos.town import Program, Town

PATIENCE = 10.0  # seconds that a fault waits for the moment at which it strikes


class Unmet(Exception):
    """The moment at which a fault strikes did not come."""


@dataclass
class Struck:
    """A fault that struck, and when it began and ended."""

    fault: Fault
    began: float
    ended: float = field(default=float("inf"))


class Faults:
    """Makes faults happen, each in a thread of its own, and remembers them."""

    def __init__(self, town: Town, people: People, app: Flask) -> None:
        self.struck: list[Struck] = []
        self.missed: list[str] = []
        self._town = town
        self._people = people
        self._app = app
        self._threads: list[threading.Thread] = []
        # Two faults at once on the same thing would end each other.
        self._smtp, self._redis, self._frozen = threading.Lock(), threading.Lock(), threading.Lock()

    def run(self, faults: list[Fault]) -> None:
        """Strike with each fault at its time; returns when the last has ended."""
        began = time.monotonic()
        for fault in faults:
            time.sleep(max(0.0, began + fault.at - time.monotonic()))
            thread = threading.Thread(target=self._strike, args=[fault], name=str(fault))
            thread.start()
            self._threads.append(thread)
        for thread in self._threads:
            thread.join()

    def of(self, *kinds: str) -> list[Struck]:
        """Those that struck, of these kinds."""
        return [struck for struck in self.struck if struck.fault.kind in kinds]

    def _strike(self, fault: Fault) -> None:
        struck = Struck(fault, time.time())
        self.struck.append(struck)
        try:
            with self._app.app_context():
                getattr(self, fault.kind)(fault.length, random.Random(fault.dice))
        except Unmet:
            self.struck.remove(struck)
        except Exception as error:  # a run in which a fault did not happen proves nothing
            self.missed.append(f"{fault} did not happen: {error!r}")
        struck.ended = time.time()

    def kill_child(self, length: float, dice: random.Random) -> None:
        """kill -9 of one of a worker's children."""
        children = dice.choice(self._town.workers).children()
        if children:
            _kill(dice.choice(children))

    def kill_exporting_child(self, length: float, dice: random.Random) -> None:
        """kill -9 of the next child that is writing an archive."""
        _worker, child = self._exporting()
        _kill(child)

    def kill_mailing_child(self, length: float, dice: random.Random) -> None:
        """kill -9 of the next child that hands over a mail, before or just after the server accepts it."""
        met = threading.Event()
        after = dice.uniform(0, 2 * self._town.smtp.delay)

        def aim(port: int) -> None:
            self._town.smtp.on_data = None
            sockets = set(_sockets(port))
            found = _who_has(lambda link: link in sockets, self._town.workers)
            if found is not None:
                threading.Timer(after, _kill, [found[1]]).start()
            met.set()

        self._town.smtp.on_data = aim
        if not met.wait(PATIENCE):
            self._town.smtp.on_data = None
            raise Unmet
        time.sleep(after)

    def kill_worker(self, length: float, dice: random.Random) -> None:
        """kill -9 of a whole worker."""
        dice.choice(self._town.workers).signal(signal.SIGKILL)

    def kill_web(self, length: float, dice: random.Random) -> None:
        """kill -9 of the process that answers, or of all of the web server."""
        children = self._town.web.children()
        if children and dice.random() < 0.5:
            _kill(children[0])
        else:
            self._town.web.signal(signal.SIGKILL)

    def kill_beat(self, length: float, dice: random.Random) -> None:
        """kill -9 of beat."""
        self._town.beat.signal(signal.SIGKILL)

    def freeze_worker(self, length: float, dice: random.Random) -> None:
        """SIGSTOP of a whole worker for longer than a lease."""
        self._freeze(dice.choice(self._town.workers), length)

    def freeze_exporting_worker(self, length: float, dice: random.Random) -> None:
        """SIGSTOP of the next worker that is writing an archive."""
        worker, _child = self._exporting()
        self._freeze(worker, length)

    def restart_redis(self, length: float, dice: random.Random) -> None:
        """Redis is killed, and comes back with its data."""
        with self._redis:
            self._town.redis.stop()
            time.sleep(length)
            self._town.redis.start()

    def empty_redis(self, length: float, dice: random.Random) -> None:
        """Redis is killed, and comes back empty."""
        with self._redis:
            self._town.redis.stop()
            self._town.redis.forget()
            time.sleep(length)
            self._town.redis.start()

    def smtp_refuses(self, length: float, dice: random.Random) -> None:
        """The mail server answers 451."""
        self._misbehave(length, answer="451 4.3.0 Try again later")

    def smtp_hangs(self, length: float, dice: random.Random) -> None:
        """The mail server takes mails and says nothing."""
        self._misbehave(length, hang=True)

    def smtp_drops(self, length: float, dice: random.Random) -> None:
        """The mail server ends the connection after DATA."""
        self._misbehave(length, drop=True)

    def disturb_database(self, length: float, dice: random.Random) -> None:
        """PostgreSQL: all its connections are cut, twice. SQLite: somebody else holds the lock for writing."""
        if self._town.sqlite is not None:
            with contextlib.closing(sqlite3.connect(self._town.sqlite, timeout=30)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                time.sleep(length)
                connection.rollback()
            return
        assert self._town.postgres is not None
        for pause in (length, 0):
            with contextlib.suppress(psycopg.OperationalError):
                self._town.postgres.cut_connections(self._town.database_name)
            time.sleep(pause)

    def copy_messages(self, length: float, dice: random.Random) -> None:
        """What waits in the queues is there twice."""
        deadline, copied, client = time.monotonic() + PATIENCE, 0, self._town.redis.client
        while not copied and time.monotonic() < deadline:
            with contextlib.suppress(redis.RedisError):
                for queue in QUEUES:
                    for message in client.lrange(queue, 0, 5):
                        client.rpush(queue, message if dice.random() < 0.5 else _readdressed(str(message)))
                        copied += 1
            time.sleep(0.01)

    def publish_rows_again(self, length: float, dice: random.Random) -> None:
        """Messages of the newest jobs, finished or not, are published once more."""
        with contextlib.suppress(DBAPIError, BrokerAway, redis.RedisError, OSError):
            for root in db.session.scalars(
                sa.select(Task).where(Task.position == 0).order_by(Task.created_at.desc()).limit(8)
            ).all():
                _publish_again(root, dice)

    def two_clicks_at_once(self, length: float, dice: random.Random) -> None:
        """Several people click twice at the same instant."""
        for person in dice.sample(self._people.all, 5):
            self._people.click_twice(person)

    def _freeze(self, worker: Program, length: float) -> None:
        with self._frozen:
            worker.signal(signal.SIGSTOP)
            time.sleep(length)
            worker.signal(signal.SIGCONT)

    def _exporting(self) -> tuple[Program, int]:
        """The next worker that is writing an archive, and which of its children does."""
        deadline, parts = time.monotonic() + PATIENCE, f"/{PARTS}/"
        while time.monotonic() < deadline:
            if found := _who_has(lambda link: parts in link, self._town.workers):
                return found
            time.sleep(0.002)
        raise Unmet

    def _misbehave(self, length: float, **how: Any) -> None:
        with self._smtp:
            vars(self._town.smtp).update(how)
            time.sleep(length)
            self._town.smtp.behave()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _readdressed(message: str) -> str:
    """The message as a second one, not as the same delivered again."""
    copy = orjson.loads(message)
    copy["properties"]["delivery_tag"] += "-again"
    return orjson.dumps(copy).decode()


def _publish_again(root: Task, dice: random.Random) -> None:
    steps = db.session.scalars(sa.select(Task).where(Task.root_id == root.id).order_by(Task.position)).all()
    if root.result is not None and dice.random() < 0.5:
        Signature.from_dict(steps[1].signature).apply_async((root.result,))
    else:
        chain(*(Signature.from_dict(step.signature) for step in steps)).apply_async()


def _who_has(wanted: Callable[[str], bool], workers: list[Program]) -> tuple[Program, int] | None:
    """The worker of which a child has a file or socket open whose name, in /proc, is `wanted`; and that child."""
    for worker in workers:
        for child in worker.children():
            with contextlib.suppress(OSError):
                for open_file in os.listdir(f"/proc/{child}/fd"):
                    if wanted(os.readlink(f"/proc/{child}/fd/{open_file}")):
                        return worker, child
    return None


def _sockets(port: int) -> Iterator[str]:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if int(columns[1].rpartition(":")[2], 16) == port:
            yield f"socket:[{columns[9]}]"
