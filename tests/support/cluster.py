"""Workers that the tests of a module share, since each takes a second to start, and an operator's commands to them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from microblog.extensions import db
from microblog.jobs.models import Job, find_job
from microblog.taskqueue.launch import launch
from tests.support import app_factory
from tests.support.servers import RedisServer, Worker, wait_for


class Staff:
    """An application, its workers, and what an operator can do."""

    def __init__(self, app: Flask, environment: dict[str, str], folder: Path, redis_server: RedisServer) -> None:
        self.app = app
        self.environment = environment
        self.folder = folder
        self.redis_server = redis_server
        self.workers: list[Worker] = []

    def hire(self, *options: str, concurrency: int = 2, **settings: str) -> Worker:
        """Start a worker; it is up when this returns."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = Worker(self.environment | settings, *options, concurrency=concurrency, log=log)
        self.workers.append(worker)
        wait_for(lambda: worker.name in self.names_up(), what=f"{worker.name} has signed in")
        return worker

    def run(self, *arguments: str) -> Result:
        """Run ``flask tasks`` in this process, with what it prints on stdout and on stderr apart."""
        result: Result = self.app.test_cli_runner().invoke(args=["tasks", *arguments])
        db.session.rollback()
        return result

    def json(self, *arguments: str) -> Any:
        """What ``flask tasks … --json`` prints, whatever it exits with."""
        result = self.run(*arguments, "--json")
        assert result.stdout, result.stderr
        return json.loads(result.stdout)

    def worker(self, worker: Worker) -> dict[str, Any]:
        """What a worker says of itself, even if it has much to do."""
        told: dict[str, Any] = self.json("worker", worker.name, "--timeout", "60")
        return told

    def names_up(self) -> list[str]:
        """The workers that answer."""
        return [worker["name"] for worker in self.json("workers", "--timeout", "10") if worker["up"]]

    def children(self, worker: Worker) -> list[int]:
        """The ids of a worker's processes, as the system has them."""
        return [
            int(child)
            for child in Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
        ]

    def launch(self, name: str, *args: Any, **options: Any) -> str:
        """Launch a job of one task, with Celery's `options` such as `queue`; returns its id."""
        task_id = launch(self.app.extensions["celery"].tasks[name].s(*args).set(**options)).id
        db.session.commit()
        return task_id

    def job(self, task_id: str) -> Job:
        """A job as it stands by now."""
        db.session.rollback()
        db.session.expire_all()
        job = find_job(task_id)
        assert job is not None
        return job

    def state(self, task_id: str) -> str:
        """The state of a job by now."""
        return self.job(task_id).state


@contextlib.contextmanager
def staffed(
    environment: dict[str, str], folder: Path, request: pytest.FixtureRequest, password: str = ""
) -> Iterator[Staff]:
    """A staff without workers, with a database and a Redis of its own; those it hires are gone afterwards.

    Its processes are told to use a `password` with Redis, which wants none and takes any.
    """
    redis_server = RedisServer()
    redis_server.start()
    url = redis_server.url.replace("redis://", f"redis://default:{password}@" if password else "redis://")
    database_url = app_factory.fresh_database(folder, request)
    own = {"DATABASE_URL": database_url, "REDIS_URL": url, "INSTANCE_PATH": str(folder / "instance")}
    with app_factory.application(environment | own) as app:
        staff = Staff(app, environment | own, folder, redis_server)
        yield staff
    for worker in staff.workers:
        worker.stop()
    redis_server.stop()
