"""Workers shared by the tests of a module, since each takes a second to start, and the operator commands for them."""

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


class Cluster:
    """An application with its workers, and the commands of an operator."""

    def __init__(self, app: Flask, environment: dict[str, str], folder: Path, redis_server: RedisServer) -> None:
        self.app = app
        self.environment = environment
        self.folder = folder
        self.redis_server = redis_server
        self.workers: list[Worker] = []

    def start_worker(self, *options: str, concurrency: int = 2, **settings: str) -> Worker:
        """Start a worker and wait until it replies to commands."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = Worker(self.environment | settings, *options, concurrency=concurrency, log=log)
        self.workers.append(worker)
        wait_for(lambda: worker.name in self.names_up(), what=f"{worker.name} replies")
        return worker

    def run(self, *arguments: str) -> Result:
        """Run ``flask tasks`` in this process, with separate stdout and stderr."""
        result: Result = self.app.test_cli_runner().invoke(args=["tasks", *arguments])
        db.session.rollback()
        return result

    def json(self, *arguments: str) -> Any:
        """Return the parsed output of ``flask tasks … --json``, whatever its exit code."""
        result = self.run(*arguments, "--json")
        assert result.stdout, result.stderr
        return json.loads(result.stdout)

    def worker(self, worker: Worker) -> dict[str, Any]:
        """Return the reply of a worker to ``flask tasks worker``, with a timeout that suits a busy one."""
        reply: dict[str, Any] = self.json("worker", worker.name, "--timeout", "60")
        return reply

    def names_up(self) -> list[str]:
        """Return the names of the workers that reply."""
        return [worker["name"] for worker in self.json("workers", "--timeout", "10") if worker["up"]]

    def launch(self, name: str, *args: Any, **options: Any) -> str:
        """Launch a job of one task, with Celery's `options` such as `queue`, and return its id."""
        task_id = launch(self.app.extensions["celery"].tasks[name].s(*args).set(**options)).id
        db.session.commit()
        return task_id

    def job(self, task_id: str) -> Job:
        """Return a job in its current state."""
        db.session.rollback()
        db.session.expire_all()
        job = find_job(task_id)
        assert job is not None
        return job

    def state(self, task_id: str) -> str:
        """Return the current state of a job."""
        return self.job(task_id).state


@contextlib.contextmanager
def running_cluster(
    environment: dict[str, str], folder: Path, request: pytest.FixtureRequest, password: str = ""
) -> Iterator[Cluster]:
    """Yield a Cluster without workers, with its own database and Redis. Its workers are stopped after the block.

    Its processes use `password` with Redis, which requires none and accepts any.
    """
    redis_server = RedisServer()
    redis_server.start()
    url = redis_server.url.replace("redis://", f"redis://default:{password}@" if password else "redis://")
    database_url = app_factory.fresh_database(folder, request)
    settings = {"DATABASE_URL": database_url, "REDIS_URL": url, "INSTANCE_PATH": str(folder / "instance")}
    with app_factory.application(environment | settings) as app:
        cluster = Cluster(app, environment | settings, folder, redis_server)
        yield cluster
    for worker in cluster.workers:
        worker.stop()
    redis_server.stop()
