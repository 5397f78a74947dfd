"""Two releases side by side, of which only the newer has some tasks: every job succeeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.extensions import db
from microblog.taskqueue import reconcile
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support import tasks
from tests.support.factories import make_older, row_of, start
from tests.support.programs import ScriptProcess
from tests.support.servers import RedisServer, Worker, wait_for

JOBS = 50  # of each kind

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # the databases do not differ in this


@pytest.fixture
def old_worker(environment: dict[str, str], tmp_path: Path) -> Iterator[Path]:
    """The log of a running worker of the older release, which has no task of the tests."""
    log = tmp_path / "old.log"
    log.touch()
    command = ["celery", "-A", "tests.support.old_release", "worker", "--hostname", "old@tests", "--concurrency", "2"]
    worker = ScriptProcess([*command, "--without-gossip", "--without-mingle"], environment, stdout=log)
    try:
        wait_for(lambda: "old@tests ready" in log.read_text(), what="the old worker is ready")
        yield log
        assert worker.poll() is None, "it has not ended"
    finally:
        worker.kill()


@pytest.mark.exhaustive
def test_jobs_of_either_release_succeed(
    app: Flask, old_worker: Path, make_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "GRACE", timedelta(seconds=0.5))
    for _ in range(JOBS):
        launch(tasks.echo.s())
        launch(app.extensions["celery"].tasks["reindex_posts"].s())
    db.session.commit()
    wait_for(lambda: "this worker has no task" in old_worker.read_text(), what="the old worker gets a new task")
    make_worker()

    def count_states() -> dict[str, int]:
        # Without the pause after which a returned message is published again.
        db.session.execute(sa.update(Task).where(Task.eta.is_not(None)).values(eta=Task.created_at))
        db.session.commit()
        reconcile.reconcile_all()
        counted = sa.select(Task.state, sa.func.count()).group_by(Task.state)
        return {row[0]: row[1] for row in db.session.execute(counted)}

    wait_for(lambda: count_states() == {"SUCCESS": 2 * JOBS}, what="all jobs succeed")
    assert db.session.scalar(sa.select(sa.func.sum(Task.crashes))) == 0


def test_unknown_task_without_row_is_dropped(app: Flask, old_worker: Path, redis_server: RedisServer) -> None:
    tasks.echo.apply_async()

    wait_for(lambda: "this worker has no task" in old_worker.read_text())
    wait_for(lambda: not redis_server.in_flight(), what="the message is acknowledged")


def test_job_of_unknown_task_is_published_to_its_queue(app: Flask, redis_server: RedisServer) -> None:
    """The process that reconciles may belong to a release without the task, and so not know its queue."""
    row = launch(app.extensions["celery"].tasks["export_posts"].s(1))
    db.session.commit()
    redis_server.client.flushall()
    renamed = row.signature | {"task": "from_a_later_release"}
    db.session.execute(sa.update(Task).values(name="from_a_later_release", signature=renamed))
    make_older(row.id, created_at=60, published_at=60)

    assert reconcile.reconcile_all() == 1

    assert (redis_server.waiting("exports"), redis_server.waiting("default")) == (1, 0)


def test_waiting_job_of_unknown_task_keeps_waiting(app: Flask, old_worker: Path, redis_server: RedisServer) -> None:
    task_id = start(tasks.echo.s(), tasks.noop.s())

    wait_for(lambda: row_of(task_id).published_at is None, what="the message is returned")
    wait_for(lambda: not redis_server.in_flight(), what="the message is acknowledged")
    assert row_of(task_id).state == "PENDING"
    assert reconcile.reconcile_all() == 0  # not yet
    make_older(task_id, eta=0)
    assert [decision.reason for decision in reconcile.decisions()] == ["It must be published: it is due."]
