"""What /metrics counts equals the Task table, after a thousand jobs that went every way a job can go."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Signature, chain
from flask import Flask

from microblog.extensions import db
from microblog.jobs.models import find_job, jobs_with_ids
from microblog.jobs.services import cancel_job
from microblog.monitoring import metrics
from microblog.monitoring.rollup import roll_up
from microblog.taskqueue import states
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import tasks
from tests.support.prometheus import TOKEN, Scrape, scrape
from tests.support.servers import PATIENCE, Worker, wait_for

JOBS = 1000
FINISHED = "microblog_tasks_finished_total"


def launch_all(folder: Path) -> list[str]:
    """The ids of a thousand jobs: most succeed, some of two steps; others fail, are retried, cancelled or kill."""
    kinds: list[Callable[[], list[Signature]]] = [
        *[lambda: [tasks.add.s(1, 2)]] * 14,
        *[lambda: [tasks.add.s(1, 2), tasks.noop.s()]] * 2,
        *[lambda: [tasks.fail.s()]] * 2,
        lambda: [tasks.fail_politely.s(), tasks.noop.s()],
        lambda: [tasks.flaky.s(1)],
    ]
    chains = [[tasks.die.s(str(folder / "twice"), 2)], [tasks.die.s(str(folder / "always"), 99), tasks.noop.s()]]
    chains += [kinds[number % len(kinds)]() for number in range(JOBS - len(chains))]
    launched = [launch(chain(*steps)).id for steps in chains]
    db.session.commit()
    for task_id in launched[100:1000:100]:
        job = find_job(task_id)
        assert job is not None
        cancel_job(job)
    return launched


def unfinished() -> int:
    db.session.rollback()
    return db.session.scalar(sa.select(sa.func.count()).select_from(Task).where(Task.unfinished)) or 0


def all_ended() -> bool:
    reconcile_all()  # as beat has it done every few seconds
    return not unfinished()


def kill_a_child(worker: Worker) -> None:
    """kill -9 of one of the worker's processes."""
    while True:
        children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
        with contextlib.suppress(ProcessLookupError):  # it died by itself meanwhile, as some tasks make it
            os.kill(int(children[-1]), signal.SIGKILL)
            return


def assert_equal_to_the_table(told: Scrape, launched: list[str]) -> None:
    """All that is told of tasks, against the rows; of jobs, against what their users are told."""
    rows = db.session.scalars(sa.select(Task)).all()
    ended = Counter((row.name, row.state) for row in rows)
    assert {key: value for key, value in told.values(FINISHED, ["name", "state"]).items() if value} == ended
    states_of_jobs = Counter((job.root.name, job.state) for job in jobs_with_ids(launched))
    assert told.values("microblog_jobs_finished_total", ["name", "state"]) == states_of_jobs
    for column in ("attempts", "crashes"):
        sums: Counter[tuple[str]] = Counter()
        for row in rows:
            sums[row.name,] += getattr(row, column)
        assert told.values(f"microblog_task_{column}_total", ["name"]) == sums
    ran = Counter((row.name,) for row in rows if row.started_at is not None)
    for times in ("wait", "run"):
        assert told.values(f"microblog_task_{times}_seconds_count", ["name"]) == ran
    run = sum((row.finished_at - row.started_at).total_seconds() for row in rows if row.started_at and row.finished_at)
    assert sum(told.values("microblog_task_run_seconds_sum", ["name"]).values()) == pytest.approx(run)


@pytest.fixture
def webs(make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> list[Flask]:
    """Two web processes' applications."""
    monkeypatch.setattr(metrics, "DEADLINE", PATIENCE)  # seconds that the database has on a busy machine
    return [make_app(METRICS_TOKEN=TOKEN) for _ in range(2)]


@pytest.fixture
def watched(webs: list[Flask]) -> Iterator[Callable[[], None]]:
    """Scrapes one of them after the other; fails if anything that is counted ever fell."""
    seen: dict[object, float] = {}

    def look() -> None:
        webs.reverse()
        for counter, value in scrape(webs[0]).counters().items():
            assert value >= seen.get(counter, 0.0) - 1e-6, counter
            seen[counter] = value

    yield look
    assert seen


@pytest.mark.exhaustive
def test_what_is_counted_equals_the_table_whatever_was_killed(
    webs: list[Flask], watched: Callable[[], None], make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    launched = launch_all(tmp_path)
    first = make_worker(TASK_LEASE="6")
    wait_for(lambda: unfinished() < JOBS * 0.9, what="some have ended")
    kill_a_child(first)
    watched()
    wait_for(lambda: unfinished() < JOBS * 0.8, what="more have ended")
    first.kill()
    watched()
    make_worker(TASK_LEASE="6")
    wait_for(lambda: unfinished() < 50, timeout=2 * PATIENCE, what="nearly all have ended")
    roll_up(lag=timedelta(seconds=10))
    watched()
    wait_for(all_ended, what="all have ended")
    watched()

    told = scrape(webs[0])

    assert_equal_to_the_table(told, launched)
    assert told.value(FINISHED, name="die", state="SUCCESS") == 1
    assert told.value("microblog_task_given_up_total", name="die") == 1
    assert told.value("microblog_task_crashes_total", name="die") >= 5
    flaky = db.session.scalars(sa.select(Task).where(Task.name == "flaky")).all()
    again = sum(row.attempts - 1 - row.crashes for row in flaky)
    assert told.value("microblog_task_retries_total", name="flaky") == again > 0
    assert not told.values("microblog_tasks_unfinished", ["name", "state"])
    assert {state for _name, state in told.values("microblog_jobs_finished_total", ["name", "state"])} == set(
        states.FINISHED
    )

    roll_up(lag=timedelta(0))
    rolled_up = scrape(webs[1]).counters()
    for counter, value in told.counters().items():
        if "_claims_" not in counter[0] and "_messages_" not in counter[0]:  # duplicates are still being dropped
            assert rolled_up[counter] == pytest.approx(value), "the same, rolled up, in another process"
    db.session.execute(sa.delete(Task))
    db.session.commit()
    watched()
