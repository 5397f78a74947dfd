"""The systems whose recovery is compared, each with its own Redis and worker: Microblog, and bare Celery."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa
from celery import states

from bench.baselines import ACKS_LATE, DEFAULT, make_default
from bench.servers import OURS, Servers, add_users
from bench.task_log import TaskLog
from bench.tasks import work
from microblog.accounts.models import User
from microblog.extensions import db
from microblog.posts.models import Post
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support.smtp import SmtpServer

USERS, POSTS_EACH = 20, 10


@dataclass(frozen=True)
class End:
    """The end of a job: its time in seconds since 1970, and the error, "" if it succeeded."""

    at: float
    error: str = ""


class System(ABC):
    """Context manager that runs a system, ready for jobs. A job is identified by the id of its first task."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.smtp = SmtpServer()
        self.log = TaskLog(servers.folder / "log")
        self._closing = contextlib.ExitStack()
        self._recipients: dict[str, str] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as closing:
            closing.callback(self.smtp.stop)
            self.environment = self._set_up(closing)
            self._closing = closing.pop_all()
        self.start_worker()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()

    def start_worker(self) -> None:
        """Start the worker, and return once it is ready."""
        self._worker = self._closing.enter_context(self.servers.worker(self.environment, self._module))

    def kill_worker(self) -> None:
        """Kill (SIGKILL) the worker and its child processes."""
        self._worker.signal_group(signal.SIGKILL)

    def supervise(self) -> None:
        """Restart the worker if it has ended by itself, as a process supervisor does in production."""
        if self._worker.poll() is not None:
            self.start_worker()

    def mailed(self, job: str) -> int:
        """Return how often the job's mail was delivered."""
        return Counter(str(message["To"]) for message in self.smtp.messages)[self._recipients[job]]

    @abstractmethod
    def start_work(self, seconds: float) -> str:
        """Start a job that works for `seconds` and records that in the task log. Return its id."""

    @abstractmethod
    def start_mail(self) -> str:
        """Start a job that sends a mail to a recipient without mails. Return its id."""

    @abstractmethod
    def end(self, job: str) -> End | None:
        """Return the end of the job, or None if it has not ended."""

    @abstractmethod
    def unfinished_state(self, job: str) -> str:
        """Return the state of a job that has not ended, as text for the report."""

    @property
    @abstractmethod
    def _module(self) -> str:
        """The module of the worker's Celery app."""

    @abstractmethod
    def _set_up(self, closing: contextlib.ExitStack) -> dict[str, str]:
        """Start everything except the worker. Return the worker's environment."""


class Microblog(System):
    """Microblog's worker and beat with the settings of production; jobs are launched."""

    _module = OURS

    def start_work(self, seconds: float) -> str:
        user = next(self._users)
        return self._launch(user, work.s(str(self.log.path), seconds))

    def start_mail(self) -> str:
        """Start an export: the archive, and the mail with it. Return its id."""
        user = next(self._users)
        root = user.launch_task("export_posts", "Export")
        db.session.commit()
        self._recipients[root.id] = user.email
        return root.id

    def end(self, job: str) -> End | None:
        steps = self._steps(job)
        if any(step.finished_at is None for step in steps):
            return None
        errors = [step.error or step.state for step in steps if step.state != states.SUCCESS]
        return End(max(step.finished_at.timestamp() for step in steps if step.finished_at), "".join(errors[:1]))

    def unfinished_state(self, job: str) -> str:
        return ", ".join(f"{step.name} {step.state}" for step in self._steps(job) if step.finished_at is None)

    def _set_up(self, closing: contextlib.ExitStack) -> dict[str, str]:
        environment = self.servers.environment("SQLite") | {"MAIL_PORT": str(self.smtp.port)}
        closing.enter_context(self.servers.app(environment | {"LOG_LEVEL": "ERROR"}))
        users = add_users(USERS)
        db.session.add_all(Post(body="a rainy day", user_id=user) for user in users for _post in range(POSTS_EACH))
        db.session.commit()
        self._users = (db.session.get_one(User, user) for user in users)
        closing.enter_context(self.servers.beat(environment))
        return environment

    def _launch(self, user: User, step: Any) -> str:
        task_id = launch(step, user_id=user.id).id
        db.session.commit()
        return task_id

    def _steps(self, job: str) -> list[Task]:
        db.session.rollback()
        return list(db.session.scalars(sa.select(Task).where(Task.root_id == job).order_by(Task.position)))


class BareCelery(System):
    """A worker of bare Celery with default settings, and plain tasks."""

    _module = DEFAULT
    acks_late = False

    def start_work(self, seconds: float) -> str:
        return self._send("default_work", str(self.log.path), seconds)

    def start_mail(self) -> str:
        recipient = f"u{len(self._recipients)}@example.com"
        job = self._send("default_mail", self.smtp.port, recipient)
        self._recipients[job] = recipient
        return job

    def end(self, job: str) -> End | None:
        stored: Any = self.servers.redis.client.get(f"celery-task-meta-{job}")
        if stored is None or (meta := json.loads(stored))["status"] not in states.READY_STATES:
            return None
        at = datetime.fromisoformat(meta["date_done"]).timestamp()
        return End(at) if meta["status"] == states.SUCCESS else End(at, meta["result"]["exc_type"])

    def unfinished_state(self, job: str) -> str:
        client: Any = self.servers.redis.client
        with self._app.connection_for_read() as connection:
            channel = connection.default_channel
            if any(job in message for message in client.hvals(channel.unacked_key)):
                return f"visibility timeout {channel.visibility_timeout / 3600:g} h"
        if any(job in message for message in client.lrange(self._app.conf.task_default_queue, 0, -1)):
            return "in the queue"
        return "lost"

    def _set_up(self, closing: contextlib.ExitStack) -> dict[str, str]:
        self._app = make_default(self.servers.redis.url, acks_late=self.acks_late)
        closing.callback(self._app.close)
        environment = {"PATH": os.environ["PATH"], "REDIS_URL": self.servers.redis.url}
        return environment | ({ACKS_LATE: "1"} if self.acks_late else {})

    def _send(self, name: str, *args: Any) -> str:
        return str(self._app.tasks[name].apply_async(args).id)


class BareCeleryAcksLate(BareCelery):
    """Bare Celery with `task_acks_late` and `task_reject_on_worker_lost`."""

    acks_late = True
