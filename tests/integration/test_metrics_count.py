"""The counters of ``/metrics`` equal the Task table after a thousand jobs with every possible outcome."""

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
from tests.support import not_none, tasks
from tests.support.prometheus import TOKEN, Scrape, scrape
from tests.support.servers import TIMEOUT, Worker, wait_for

JOBS = 400
FINISHED = "microblog_tasks_finished_total"


def launch_all(folder: Path) -> list[str]:
    """Launch JOBS jobs and return their ids.

    Most succeed, some of them with two steps; others fail, are retried, are cancelled or kill their worker process.
    """
    kinds: list[Callable[[], list[Signature]]] = [
        *[lambda: [tasks.add.s(1, 2)]] * 14,
        *[lambda: [tasks.add.s(1, 2), tasks.noop.s()]] * 2,
        *[lambda: [tasks.fail.s()]] * 2,
        lambda: [tasks.fail_politely.s(), tasks.noop.s()],
        lambda: [tasks.flaky.s(1)],
    ]
    chains = [
        [tasks.kill_itself.s(str(folder / "twice"), 2)],
        [tasks.kill_itself.s(str(folder / "always"), 99), tasks.noop.s()],
    ]
    chains += [kinds[number % len(kinds)]() for number in range(JOBS - len(chains))]
    launched = [launch(chain(*steps)).id for steps in chains]
    db.session.commit()
    for task_id in launched[40::40]:
        job = find_job(task_id)
        assert job is not None
        cancel_job(job)
    return launched


def unfinished() -> int:
    db.session.rollback()
    return db.session.scalar(sa.select(sa.func.count()).select_from(Task).where(Task.unfinished)) or 0


def all_ended() -> bool:
    reconcile_all()  # beat schedules this task every few seconds
    return not unfinished()


def kill_a_child(worker: Worker) -> None:
    """Kill one of the worker's child processes with SIGKILL."""
    while True:
        children = worker.process.children()
        with contextlib.suppress(ProcessLookupError):  # some tasks kill their process: it may be gone already
            os.kill(children[-1], signal.SIGKILL)
            return


def assert_equals_table(scraped: Scrape, launched: list[str]) -> None:
    """Compare the task metrics with the rows, and the job metrics with the states that users see."""
    rows = db.session.scalars(sa.select(Task)).all()
    ended = Counter((row.name, row.state) for row in rows)
    assert {key: value for key, value in scraped.values(FINISHED, ["name", "state"]).items() if value} == ended
    job_states = Counter((job.root.name, job.state) for job in jobs_with_ids(launched))
    assert scraped.values("microblog_jobs_finished_total", ["name", "state"]) == job_states
    for column in ("attempts", "crashes"):
        sums: Counter[tuple[str]] = Counter()
        for row in rows:
            sums[row.name,] += getattr(row, column)
        assert scraped.values(f"microblog_task_{column}_total", ["name"]) == sums
    ran = Counter((row.name,) for row in rows if row.started_at is not None)
    for times in ("wait", "run"):
        assert scraped.values(f"microblog_task_{times}_seconds_count", ["name"]) == ran
    run = sum((row.finished_at - row.started_at).total_seconds() for row in rows if row.started_at and row.finished_at)
    assert sum(scraped.values("microblog_task_run_seconds_sum", ["name"]).values()) == pytest.approx(run)


@pytest.fixture
def web_apps(make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> list[Flask]:
    """The applications of two web processes."""
    monkeypatch.setattr(metrics, "DEADLINE", TIMEOUT)  # seconds that the database has on a busy machine
    return [make_app(METRICS_TOKEN=TOKEN) for _ in range(2)]


@pytest.fixture
def check_counters(web_apps: list[Flask]) -> Iterator[Callable[[], None]]:
    """Scrapes the two applications in turn; fails if a counter has decreased."""
    previous: dict[object, float] = {}

    def check() -> None:
        web_apps.reverse()
        for counter, value in scrape(web_apps[0]).counters().items():
            assert value >= previous.get(counter, 0.0) - 1e-6, counter
            previous[counter] = value

    yield check
    assert previous


@pytest.mark.exhaustive
def test_counters_equal_task_table_after_crashes(
    web_apps: list[Flask], check_counters: Callable[[], None], make_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    launched = launch_all(tmp_path)
    first = make_worker(TASK_LEASE="6")
    wait_for(lambda: unfinished() < JOBS * 0.9, what="some tasks have ended")
    kill_a_child(first)
    check_counters()
    wait_for(lambda: unfinished() < JOBS * 0.8, what="more tasks have ended")
    first.kill()
    check_counters()
    make_worker(TASK_LEASE="6")
    wait_for(lambda: unfinished() < 50, timeout=2 * TIMEOUT, what="nearly all tasks have ended")
    roll_up(lag=timedelta(seconds=10))
    check_counters()
    wait_for(all_ended, what="all tasks have ended")
    check_counters()

    scraped = scrape(web_apps[0])

    assert_equals_table(scraped, launched)
    assert scraped.value(FINISHED, name="kill_itself", state="SUCCESS") == 1
    assert scraped.value("microblog_task_given_up_total", name="kill_itself") == 1
    assert not_none(scraped.value("microblog_task_crashes_total", name="kill_itself")) >= 5
    flaky = db.session.scalars(sa.select(Task).where(Task.name == "flaky")).all()
    retries = sum(row.attempts - 1 - row.crashes for row in flaky)
    assert scraped.value("microblog_task_retries_total", name="flaky") == retries > 0
    assert not scraped.values("microblog_tasks_unfinished", ["name", "state"])
    assert {state for _name, state in scraped.values("microblog_jobs_finished_total", ["name", "state"])} == set(
        states.FINISHED
    )

    roll_up(lag=timedelta(0))
    rolled_up = scrape(web_apps[1]).counters()
    for counter, value in scraped.counters().items():
        if "_claims_" not in counter[0] and "_messages_" not in counter[0]:  # duplicates are still being dropped
            assert rolled_up[counter] == pytest.approx(value), "the rolled-up value differs in another process"
    db.session.execute(sa.delete(Task))
    db.session.commit()
    check_counters()
