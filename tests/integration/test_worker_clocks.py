"""A worker whose clock is a minute ahead or behind works beside one whose clock is right."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import tasks
from tests.support.external import shifted_clock
from tests.support.factories import row_of, start
from tests.support.servers import Worker, wait_for

pytestmark = [pytest.mark.exhaustive, pytest.mark.usefixtures("app")]  # on PostgreSQL, which has a clock of its own

PROCESSES = 2  # of each worker
LEASE = 2
COUNTDOWN = 5
AT_ONCE = 20.0  # seconds: enough for a busy machine, and less than a minute


@pytest.fixture(params=["+60s", "-60s"], autouse=True)
def workers(request: pytest.FixtureRequest, make_worker: Callable[..., Worker]) -> set[str]:
    """The names of a worker whose clock is right, and of one whose clock is not, which reconciles often."""
    lease, other = {"TASK_LEASE": str(LEASE)}, shifted_clock(request.param) | {"RECONCILE_INTERVAL": "0.5"}
    return {make_worker(concurrency=PROCESSES, **lease, **settings).name for settings in ({}, other)}


def rows(ids: list[str]) -> list[Task]:
    return [row_of(task_id) for task_id in ids]


def wait_for_state(state: str, ids: list[str]) -> None:
    wait_for(lambda: {row.state for row in rows(ids)} == {state}, timeout=AT_ONCE, what=f"all tasks are {state}")


def test_tasks_start_at_once_on_both_workers(workers: set[str], release_file: Path) -> None:
    ids = [start(tasks.wait_for_file.s(str(release_file))) for _ in range(2 * PROCESSES)]

    wait_for_state("STARTED", ids)

    assert {row.worker for row in rows(ids)} == workers
    release_file.touch()
    wait_for_state("SUCCESS", ids)
    assert {row.attempts for row in rows(ids)} == {1}


def test_long_task_is_not_taken_over(workers: set[str], runs_file: Path, tmp_path: Path) -> None:
    """This process and the worker with the other clock reconcile, and each worker has a free process."""
    paths = [tmp_path / f"release{number}" for number in range(2 * PROCESSES)]
    release = {start(tasks.ignore_cancellation.s(str(runs_file), str(path))): path for path in paths}
    wait_for_state("STARTED", list(release))
    long_tasks = {row.worker: row.id for row in rows(list(release))}
    for task_id in release.keys() - long_tasks.values():
        release[task_id].touch()

    until = time.monotonic() + 3 * LEASE
    while time.monotonic() < until:
        reconcile_all()
        time.sleep(0.1)
    for path in paths:
        path.touch()

    wait_for_state("SUCCESS", list(release))
    assert long_tasks.keys() == workers
    assert {(row.attempts, row.crashes) for row in rows(list(release))} == {(1, 0)}
    assert len(runs_file.read_text().splitlines()) == len(release)


def test_retry_waits_for_its_countdown_and_no_longer(workers: set[str], release_file: Path) -> None:
    ids = [start(tasks.retry_behind.s(str(release_file), COUNTDOWN)) for _ in range(2 * PROCESSES)]
    wait_for_state("STARTED", ids)
    assert {row.worker for row in rows(ids)} == workers

    release_file.touch()
    time.sleep(COUNTDOWN - 0.5)

    assert {row.attempts for row in rows(ids)} == {1}
    wait_for_state("SUCCESS", ids)
    assert {(row.attempts, row.crashes) for row in rows(ids)} == {(2, 0)}
