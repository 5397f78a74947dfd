"""The engine compared with a simple model of its promises: random sequences of operations while time passes.

No worker runs. The test acts as all workers: it claims, renews and stores through the same functions as they do. The
model gives the expected outcome of each call and the expected row.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from celery import chain
from celery.app.task import Context
from celery.result import AsyncResult
from flask import Flask
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from microblog.database import UtcDateTime
from microblog.extensions import db
from microblog.jobs.models import find_job
from microblog.jobs.services import InvalidJobState, cancel_job
from microblog.taskqueue import launch, states, transitions
from microblog.taskqueue.errors import Cancelled, ClaimLost, ClaimRefused
from microblog.taskqueue.interface import Claim
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import tasks
from tests.support.servers import RedisServer

LEASE = 30.0
MAX_CRASHES = 3
WORKERS = st.sampled_from(["one@host", "two@host"])
ENDS = st.sampled_from([states.SUCCESS, states.FAILURE])


TIMES = [column for column in Task.__table__.columns if isinstance(column.type, UtcDateTime)]


class Clock:
    """The seconds that have passed for the test, beside those of its own run, which are too few to count."""

    passed = 0.0

    @classmethod
    def elapsed(cls) -> float:
        """Return the time of the clock for durations, in place of clock.elapsed()."""
        return time.monotonic() + cls.passed

    @classmethod
    def advance(cls, seconds: float) -> None:
        """Let time pass: all times in rows become older, since the clock of the database cannot be moved."""
        cls.passed += seconds
        for task_id, *values in db.session.execute(sa.select(Task.id, *TIMES)).all():
            older = {
                column.name: value and value - timedelta(seconds=seconds)
                for column, value in zip(TIMES, values, strict=True)
            }
            db.session.execute(sa.update(Task).where(Task.id == task_id).values(older))
        db.session.commit()


@dataclass
class Step:
    """The expected state of one task."""

    id: str
    state: str = states.PENDING
    attempt: int = 0
    crashes: int = 0
    lease_until: float | None = None
    cancel: bool = False
    worker: str | None = None

    @property
    def finished(self) -> bool:
        return self.state in states.FINISHED

    def held(self) -> bool:
        return self.state in states.RUNNING and self.lease_until is not None and Clock.passed < self.lease_until


@dataclass
class JobModel:
    """A job of two steps, of which the second runs after the first."""

    steps: list[Step]

    def end(self, position: int, state: str) -> None:
        """End a step; if it does not succeed, end the following steps too."""
        for step in self.steps[position:] if state != states.SUCCESS else self.steps[position : position + 1]:
            step.state, step.lease_until = state, None


@dataclass
class Holder:
    """A worker process that won a claim, and may have lost it without noticing."""

    claim: Claim
    job: JobModel
    step: Step
    worker: str
    dead: bool = False

    def is_valid(self) -> bool:
        """Return True if the engine must accept what this process writes."""
        return not self.step.finished and self.step.attempt == self.claim.attempt

    def context(self) -> Context:
        context = Context({"id": self.step.id, "hostname": self.worker, "delivery_info": {}})
        context.claim = self.claim
        return context


class EngineMachine(RuleBasedStateMachine):
    """The operations of users and workers, and the passing of time."""

    app: Flask
    redis: RedisServer
    jobs = Bundle("jobs")
    holders = Bundle("holders")

    @initialize()
    def begin(self) -> None:
        db.session.rollback()
        db.session.execute(sa.delete(Task))
        db.session.commit()
        self.redis.client.flushall()
        Clock.passed = 0.0
        self.all: list[JobModel] = []
        self.lost_results: set[str] = set()

    @property
    def backend(self) -> Any:
        return self.app.extensions["celery"].backend

    @property
    def executor(self) -> Any:
        return self.app.extensions["celery"].executor

    # -- users

    @rule(target=jobs)
    def launch(self) -> JobModel:
        root = launch.launch(chain(tasks.add.s(1, 2), tasks.noop.s()))
        db.session.commit()
        found = find_job(root.id)
        assert found is not None
        job = JobModel([Step(step.id) for step in found.steps])
        self.all.append(job)
        return job

    @rule(job=jobs)
    def cancel(self, job: JobModel) -> None:
        found = find_job(job.steps[0].id)
        assert found is not None
        if all(step.finished for step in job.steps):
            with pytest.raises(InvalidJobState):
                cancel_job(found)
            return
        cancel_job(found)
        position, current = self.current(job)
        for step in job.steps:
            step.cancel = step.cancel or not step.finished
        if current.state in states.WAITING:
            job.end(position, states.REVOKED)

    # -- workers

    @rule(target=holders, job=jobs, worker=WORKERS)
    def claim(self, job: JobModel, worker: str) -> Any:
        """A message arrives; it may be the first, a duplicate or one that was published again."""
        _position, step = self.current(job)
        lost = step.state in states.RUNNING and step.lease_until is not None
        refused = step.finished or step.held() or step.cancel or step.crashes + lost >= MAX_CRASHES
        if refused:
            with pytest.raises(ClaimRefused):
                transitions.claim_task(self.executor, step.id, worker=worker, lease=LEASE, max_crashes=MAX_CRASHES)
            return multiple()
        held = transitions.claim_task(self.executor, step.id, worker=worker, lease=LEASE, max_crashes=MAX_CRASHES)
        assert held is not None
        step.state, step.worker, step.attempt = states.STARTED, worker, step.attempt + 1
        step.crashes += lost
        step.lease_until = Clock.passed + LEASE
        assert held.attempt == step.attempt
        return Holder(held, job, step, worker)

    @rule(holder=holders)
    def renew(self, holder: Holder) -> None:
        """The main process of the worker renews the lease by worker name, whichever of its processes runs the task."""
        transitions.renew_leases(self.executor, [holder.step.id], worker=holder.worker, lease=LEASE)
        step = holder.step
        if step.state in states.RUNNING and step.worker == holder.worker:
            step.lease_until = Clock.passed + LEASE

    @rule(holder=holders)
    def interrupt(self, holder: Holder) -> None:
        """The worker shuts down: it ends the process and releases the task."""
        if not holder.is_valid():
            return
        holder.dead = True
        transitions.release_on_shutdown(self.executor, holder.step.id, worker=holder.worker)
        if holder.step.state in states.RUNNING and holder.step.worker == holder.worker:
            holder.step.lease_until = None

    @rule(holder=holders.filter(lambda holder: not holder.dead))
    def progress(self, holder: Holder) -> None:
        meta = {"current": 1, "total": 2, "percent": 50, "message": ""}
        try:
            self.backend.store_result(holder.step.id, meta, states.PROGRESS, request=holder.context())
        except ClaimLost:
            assert not holder.is_valid()
            return
        except Cancelled:
            assert holder.is_valid()
            assert holder.step.cancel
        else:
            assert holder.is_valid()
            assert not holder.step.cancel

        holder.step.state = states.PROGRESS
        holder.step.lease_until = Clock.passed + LEASE

    @rule(holder=holders.filter(lambda holder: not holder.dead), state=ENDS)
    def finish(self, holder: Holder, state: str) -> None:
        is_valid = holder.is_valid()
        result = 3 if state == states.SUCCESS else RuntimeError("broken")
        try:
            self.backend.store_result(holder.step.id, result, state, request=holder.context())
        except ClaimLost:
            assert not is_valid
            return
        if is_valid:
            holder.job.end(holder.job.steps.index(holder.step), state)

    @rule(holder=holders.filter(lambda holder: not holder.dead))
    def retry(self, holder: Holder) -> None:
        is_valid = holder.is_valid()
        try:
            self.backend.store_result(holder.step.id, OSError("not now"), states.RETRY, request=holder.context())
        except ClaimLost:
            assert not is_valid
            return
        if is_valid:
            holder.step.state, holder.step.lease_until = states.RETRY, None

    # -- time, Redis and beat

    @rule(seconds=st.sampled_from([5, 10, 31, 100]))
    def time_passes(self, seconds: int) -> None:
        Clock.advance(seconds)
        self.redis.make_messages_older("default", seconds)

    @rule()
    def redis_loses_data(self) -> None:
        self.redis.client.flushall()
        self.lost_results.update(step.id for job in self.all for step in job.steps)

    @rule()
    def reconcile(self) -> None:
        reconcile_all()
        for job in self.all:
            position, step = self.current(job)
            if step.finished or step.held():
                continue
            if step.cancel:
                job.end(position, states.REVOKED)
            elif step.crashes + (step.state in states.RUNNING and step.lease_until is not None) >= MAX_CRASHES:
                step.crashes = MAX_CRASHES
                job.end(position, states.FAILURE)

    # -- invariants after each operation

    @invariant()
    def rows_equal_model(self) -> None:
        db.session.rollback()
        rows = {row.id: row for row in db.session.scalars(sa.select(Task))}
        for job in getattr(self, "all", []):
            for step in job.steps:
                row = rows[step.id]
                assert (row.state, row.attempts, row.crashes) == (step.state, step.attempt, step.crashes)
                assert bool(row.cancel_requested_at) >= step.cancel or step.finished

    @invariant()
    def results_equal_rows(self) -> None:
        for job in getattr(self, "all", []):
            for step in job.steps:
                if step.finished and step.id not in self.lost_results:
                    assert AsyncResult(step.id).state == step.state

    def teardown(self) -> None:
        """Check that every job ends once time passes, reconcile runs and a worker runs its tasks."""
        for _ in range(40):
            if self.all_finished():
                break
            self.time_passes(31)
            self.reconcile()
            for job in getattr(self, "all", []):
                _position, step = self.current(job)
                if step.finished:
                    continue
                row = self.row(step)
                if row.published_at is not None and not step.cancel:
                    holder = self.claim(job, "honest@host")
                    self.finish(holder, states.SUCCESS)
        assert self.all_finished()

    def all_finished(self) -> bool:
        return all(step.finished for job in getattr(self, "all", []) for step in job.steps)

    def row(self, step: Step) -> Task:
        db.session.rollback()
        return db.session.get_one(Task, step.id, populate_existing=True)

    @staticmethod
    def current(job: JobModel) -> tuple[int, Step]:
        """Return the position and the model of the first unfinished step, or of the last step if all have ended."""
        unfinished = [(position, step) for position, step in enumerate(job.steps) if not step.finished]
        return unfinished[0] if unfinished else (len(job.steps) - 1, job.steps[-1])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("interface", "transitions", "reconcile"):
        monkeypatch.setattr(f"microblog.taskqueue.{module}.elapsed", Clock.elapsed)


@pytest.mark.timeout(1800)  # on a busy machine
@pytest.mark.parametrize(
    ("database", "sequences"),
    [("sqlite", 10), pytest.param("postgresql", 60, marks=pytest.mark.exhaustive)],
)
def test_engine_conforms_to_model(app: Flask, redis_server: RedisServer, clock: None, sequences: int) -> None:
    app.config["TASK_LEASE"] = LEASE
    EngineMachine.app, EngineMachine.redis = app, redis_server

    run_state_machine_as_test(
        EngineMachine,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,  # the same sequences in each run
            database=None,
        ),
    )
