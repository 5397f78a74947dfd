"""Long tasks leave a process to others, and reconcile needs none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from celery.worker.state import reserved_requests
from flask import Flask

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.taskqueue import reconcile
from microblog.taskqueue.celery_settings import QUEUES
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from microblog.taskqueue.queues import QueueOrder
from microblog.taskqueue.reconcile import reconcile_in_turn
from tests.support import not_none, tasks
from tests.support.factories import make_older, row_of, start, state_of
from tests.support.servers import RedisServer, Worker, wait_for

pytestmark = pytest.mark.parametrize("database", ["sqlite"])


def test_long_tasks_leave_one_process_to_others(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer, release_file: Path
) -> None:
    long = [start(tasks.wait_for_file.s(str(release_file)).set(queue="exports")) for _ in range(4)]
    make_worker(concurrency=3)
    wait_for(lambda: states(long).count("STARTED") == 2, what="two long tasks run")

    for queue in ("mail", "default", "mail"):
        other = launch(tasks.noop.s().set(queue=queue)).id
        db.session.commit()
        wait_for(lambda: state_of(other) == "SUCCESS", what=f"a task of {queue} runs")  # noqa: B023 - called at once
    assert states(long).count("STARTED") == 2
    assert redis_server.waiting("exports") == 2

    release_file.touch()
    wait_for(lambda: states(long) == ["SUCCESS"] * 4, what="all long tasks end")


@pytest.mark.exhaustive
@pytest.mark.parametrize(("options", "concurrency"), [((), 1), (("--queues", "exports"), 2)])
def test_worker_without_other_processes_or_queues_takes_long_tasks(
    app: Flask, make_worker: Callable[..., Worker], release_file: Path, options: tuple[str, ...], concurrency: int
) -> None:
    long = [start(tasks.wait_for_file.s(str(release_file)).set(queue="exports")) for _ in range(3)]

    make_worker(*options, concurrency=concurrency)

    wait_for(lambda: states(long).count("STARTED") == concurrency, what="all processes run long tasks")
    release_file.touch()
    wait_for(lambda: states(long) == ["SUCCESS"] * 3, what="all long tasks end")


def states(task_ids: list[str]) -> list[str]:
    return [state_of(task_id) for task_id in task_ids]


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Iterator[QueueOrder]:
    """The order of all queues in a worker with three processes that runs no tasks."""
    monkeypatch.setattr(QueueOrder, "pool", SimpleNamespace(num_processes=3))
    assert not reserved_requests
    yield QueueOrder(list(QUEUES))  # type: ignore[no-untyped-call]
    reserved_requests.clear()


class TakenRequest:
    """A request of a task that a worker has taken."""

    def __init__(self, queue: str) -> None:
        self.delivery_info = {"routing_key": queue}


def test_queue_of_long_tasks_is_left_out_while_they_have_all_processes_but_one(app: Flask, order: QueueOrder) -> None:
    requests = [TakenRequest(queue) for queue in ("exports", "mail", "exports")]

    reserved_requests.update(requests[:2])
    assert order.consume(3) == ["exports", "mail", "default"]
    reserved_requests.update(requests)
    assert order.consume(3) == ["mail", "default"]
    reserved_requests.discard(requests[0])
    assert order.consume(3) == ["exports", "mail", "default"]


def test_queues_take_turns(app: Flask, order: QueueOrder) -> None:
    order.rotate("exports")  # type: ignore[no-untyped-call]

    assert order.consume(3) == ["mail", "default", "exports"]


def test_busy_worker_reconciles_without_beat(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer, release_file: Path
) -> None:
    make_worker(concurrency=1, RECONCILE_INTERVAL="0.2")
    busy = start(tasks.wait_for_file.s(str(release_file)))
    wait_for(lambda: state_of(busy) == "STARTED", what="the only process is busy")
    lost = start(tasks.noop.s())
    redis_server.client.delete(redis_server.key("default"))
    db.session.execute(sa.update(Task).where(Task.id == lost).values(published_at=None))
    make_older(lost, created_at=60)

    wait_for(lambda: row_of(lost).published_at is not None, what="the job is published")
    assert (state_of(busy), state_of(lost)) == ("STARTED", "PENDING")
    release_file.touch()
    wait_for(lambda: state_of(lost) == "SUCCESS")


@pytest.mark.exhaustive
def test_suspended_machine_is_no_crash(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer, release_file: Path
) -> None:
    """All processes are stopped for longer than a lease, and go on: the leases are renewed before one is taken over."""
    worker = make_worker(concurrency=1, TASK_LEASE="2", RECONCILE_INTERVAL="0.2")
    task_id = start(tasks.wait_for_file.s(str(release_file)))
    wait_for(lambda: state_of(task_id) == "STARTED")

    for _ in range(2):
        with worker.frozen():
            wait_for(lambda: lease_of(task_id) < utcnow() - timedelta(seconds=1), what="the lease expires")
        wait_for(lambda: lease_of(task_id) > utcnow(), what="the lease is renewed")
    release_file.touch()

    wait_for(lambda: state_of(task_id) == "SUCCESS")
    assert (row_of(task_id).attempts, row_of(task_id).crashes) == (1, 0)


class TimeIsUp(BaseException):
    """Ends the loop of the thread under test."""


@pytest.mark.parametrize(
    ("own", "of_database", "writable"),
    [
        pytest.param(45, 45, True, id="suspended"),
        pytest.param(5, 45, True, id="virtual machine was stopped, or the database's clock was set"),
        pytest.param(5, -3600, True, id="the database's clock was set back"),
        pytest.param(5, None, True, id="the database is unavailable"),
        pytest.param(5, 5, False, id="the database is read-only"),
    ],
)
def test_leases_are_renewed_before_a_worker_that_was_stopped_reconciles(
    app: Flask, monkeypatch: pytest.MonkeyPatch, own: int, of_database: int | None, writable: bool
) -> None:
    """`own` and `of_database` are seconds of the second pause, by the clocks of the worker and of the database."""
    clock, database_clock, turns, due_turns = 1000.0, utcnow(), list[float](), list[float]()
    available = can_write = True
    usual = (5, 5, True)
    pauses: Iterator[tuple[int, int | None, bool]] = iter([usual, (own, of_database, writable), *[usual] * 4])

    def sleep(seconds: float) -> None:
        nonlocal clock, database_clock, available, can_write
        assert seconds == 5
        if (pause := next(pauses, None)) is None:
            raise TimeIsUp
        clock += pause[0]
        available, can_write = pause[1] is not None, pause[2]
        database_clock += timedelta(seconds=pause[1] or 0)

    monkeypatch.setitem(app.config, "RECONCILE_INTERVAL", 5.0)
    monkeypatch.setitem(app.config, "TASK_LEASE", 30.0)
    monkeypatch.setattr(reconcile, "elapsed", lambda: clock)
    monkeypatch.setattr(reconcile.Reconciler, "_database_time", lambda *_: database_clock if available else None)
    monkeypatch.setattr(reconcile.Reconciler, "_can_write", lambda *_: available and can_write)
    monkeypatch.setattr(reconcile, "time", SimpleNamespace(sleep=sleep))

    def reconcile_in_turn(worker: str, only_due: bool) -> None:
        (due_turns if only_due else turns).append(clock - 1000)

    monkeypatch.setattr(reconcile, "reconcile_in_turn", reconcile_in_turn)
    worker = SimpleNamespace(app=app.extensions["celery"], hostname="one@host")

    with pytest.raises(TimeIsUp):
        reconcile.Reconciler(worker)._run(worker)

    if of_database is None:  # also at the begin of the next pause
        assert (turns, due_turns) == ([5, 30], [15, 20, 25])
    elif not writable:  # nothing is done at the end of that pause
        assert (turns, due_turns) == ([5, 25, 30], [15, 20])
    else:
        assert (turns, due_turns) == ([5, own + 20, own + 25], [own + 5, own + 10, own + 15])


def lease_of(task_id: str) -> datetime:
    return not_none(row_of(task_id).lease_expires_at)


def test_workers_take_turns_to_reconcile(make_app: Callable[..., Flask], redis_server: RedisServer) -> None:
    with make_app(RECONCILE_INTERVAL=60.0).app_context():
        assert reconcile_in_turn("one@host") == 0
        assert reconcile_in_turn("two@host") is None
        [key] = redis_server.client.keys(redis_server.key("reconcile"))
        assert 55_000 < redis_server.client.pttl(key) <= 60_000
        redis_server.client.delete(key)
        assert reconcile_in_turn("two@host") == 0


def test_long_turn_does_not_end_early(
    make_app: Callable[..., Flask], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_app(RECONCILE_INTERVAL=60.0).app_context():
        for _ in range(2):
            make_older(start(tasks.noop.s()), published_at=60, created_at=60)
        redis_server.client.delete(redis_server.key("default"))
        left: list[int] = []

        def publish(*arguments: Any, **options: Any) -> bool:
            left.append(redis_server.client.pttl(redis_server.key("reconcile")))
            redis_server.client.pexpire(redis_server.key("reconcile"), 1_000)
            return True

        monkeypatch.setattr(reconcile, "publish", publish)

        assert reconcile_in_turn("one@host") == 2

        assert all(55_000 < milliseconds <= 60_000 for milliseconds in left)
        assert len(left) == 2


def test_thread_that_reconciles_survives_any_error(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = iter([1, 2, 3])
    outcomes: Iterator[Any] = iter([RuntimeError("something unexpected"), *[utcnow()] * 4])
    turns: list[str] = []

    def sleep(seconds: float) -> None:
        if next(pauses, None) is None:
            raise TimeIsUp

    def database_time(*_: Any) -> datetime:
        outcome: datetime | Exception = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setitem(app.config, "RECONCILE_INTERVAL", 0.1)
    monkeypatch.setattr(reconcile.Reconciler, "_database_time", database_time)
    monkeypatch.setattr(reconcile, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(reconcile, "reconcile_in_turn", lambda worker, only_due: turns.append(worker))
    worker = SimpleNamespace(app=app.extensions["celery"], hostname="one@host")

    with pytest.raises(TimeIsUp):
        reconcile.Reconciler(worker)._run(worker)

    assert turns == ["one@host"] * 2
