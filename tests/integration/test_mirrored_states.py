"""A row ends with the state that Celery gives its task, whatever the task stores, raises and returns.

Each example runs twice through Celery's tracer, which calls the result backend: as a launched task, and as a task of a
plain Celery app, whose result is the expected one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple
from unittest import mock
from uuid import uuid4

import pytest
from celery import Celery, Task
from celery.app.task import Context
from celery.app.trace import build_tracer
from celery.backends.redis import RedisBackend
from celery.exceptions import Ignore, TimeLimitExceeded
from celery.result import AsyncResult
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microblog.taskqueue import states
from microblog.taskqueue.errors import ClaimLost, JobError
from microblog.taskqueue.reconcile import reconcile_all
from microblog.taskqueue.worker import JobTask
from tests.support import tasks
from tests.support.factories import row_of, start
from tests.support.servers import RedisServer
from tests.support.values import TEXTS, VALUES

# Celery warns of errors outside of a task, with their text.
pytestmark = pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning")

WORKER = "one@host"
WORDS = ["PENDING", "RECEIVED", "STARTED", "REJECTED", "IGNORED", "PROGRESS", *states.FINISHED]


class Unprintable(JobError):
    """An error without a text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Nested(list[Any]):
    """A list that contains a list, and so on. Its repr() does not fail."""

    def __init__(self, depth: int) -> None:
        inner: list[Any] = []
        for _ in range(depth):
            inner = [inner]
        super().__init__(inner)
        self._depth = depth

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._depth})"


class Huge(int):
    """A number with more digits than int() converts to text. Its repr() does not fail."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.bit_length()} bits)"


class PlainBackend(RedisBackend):
    """Celery's result backend, which does not wait for results."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        pass


class Call(NamedTuple):
    """A call of a method of the task or of its result backend."""

    method: str
    arguments: tuple[Any, ...]


class Run(NamedTuple):
    """One run of a task: its calls, and the error that it raises or the value that it returns."""

    calls: list[Call]
    ending: Any


FOUND = {
    "PENDING stored by the task": Run([Call("update_state", ("PENDING", None))], 1),
    "RETRY stored by the task": Run([Call("update_state", ("RETRY", OSError("later")))], 1),
    "error without a text": Run([], Unprintable()),
    "revoked without a text": Run([Call("update_state", ("REVOKED", Unprintable()))], 1),
    "half a surrogate pair as state": Run([Call("update_state", ("\ud800", None))], 1),
    "half a surrogate pair in a final result": Run([Call("mark_as_revoked", ("\ud800",))], 1),
    "nested result": Run([], Nested(500)),
    "no error as failure": Run([Call("update_state", ("FAILURE", {"reason": 1}))], 1),
}

ERRORS = st.builds(
    lambda kind, arguments: kind(*arguments),
    st.sampled_from([JobError, RuntimeError, KeyError, Unprintable]),
    st.lists(VALUES, max_size=2),
)
ODD = st.sampled_from([object(), {1, 2}, Nested(500), Nested(3000), Huge(10**5000)])
ANYTHING = VALUES | ERRORS | ODD
META = ANYTHING | st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("current", "total", "percent", "message"), ANYTHING)
)
CALLS = st.one_of(
    st.builds(lambda word, meta: Call("update_state", (word, meta)), st.sampled_from(WORDS) | TEXTS, META),
    # Celery cannot read RETRY with another value than an error, and reads it before it stores the next state.
    st.builds(lambda error: Call("update_state", ("RETRY", error)), ERRORS),
    st.builds(lambda: Call("mark_as_started", ())),
    st.builds(lambda error: Call("mark_as_failure", (error,)), ERRORS | st.just(TimeLimitExceeded(1))),
    st.builds(lambda reason: Call("mark_as_revoked", (reason,)), TEXTS),
)
RUNS = st.builds(Run, st.lists(CALLS, max_size=4), ANYTHING)


def perform(task: Task, run: Run, last: bool, raised: list[str]) -> Any:
    """Make the calls of `run`, as a task and the main process of its worker do; retry the task unless it is the last.

    Of the errors that calls raise before a final state is stored, the types are added to `raised`.
    """
    main_process = Context({"id": task.request.id, "hostname": WORKER, "delivery_info": {}})
    for method, arguments in run.calls:
        try:
            match method:
                case "update_state":
                    task.update_state(state=arguments[0], meta=arguments[1])
                case "mark_as_started":
                    task.backend.mark_as_started(task.request.id, pid=1)
                case _:
                    getattr(task.backend, method)(task.request.id, *arguments, request=main_process)
        except Exception as error:
            if not has_ended(task, task.request.id):
                raised.append(type(error).__name__)
            raise
        if not isinstance(task, JobTask) and has_ended(task, task.request.id):
            raise Ignore  # a final state of Celery's own backend could be replaced
    failure = run.ending if isinstance(run.ending, Exception) else None
    if not last:
        raise task.retry(exc=failure, countdown=0)
    if failure is not None:
        raise failure
    return run.ending


def trace(app: Celery, task_id: str, runs: list[Run]) -> tuple[str, list[str]]:
    """Run a task in Celery's tracer; return its state in Redis, and the types of the errors that its calls raised."""
    task = app.tasks["noop"]
    raised: list[str] = []
    for retries, run in enumerate(runs):
        request = {"id": task_id, "root_id": task_id, "hostname": WORKER, "retries": retries, "delivery_info": {}}
        last = retries == len(runs) - 1
        body = partial(perform, task, run, last, raised)
        with mock.patch.object(task, "run", body), suppress(ClaimLost):
            build_tracer(task.name, task, app=app)(task_id, [], {}, request)
        if has_ended(task, task_id):
            break
    return stored_state(task, task_id), raised


def stored_state(task: Task, task_id: str) -> str:
    """Return the state that Redis holds, also if Celery cannot read its result."""
    payload = task.backend.get(task.backend.get_key_for_task(task_id))
    return str(json.loads(payload)["status"]) if payload else states.PENDING


def has_ended(task: Task, task_id: str) -> bool:
    return stored_state(task, task_id) in states.FINISHED


@pytest.fixture(autouse=True)
def without_logs() -> Iterator[None]:
    """Logs with half a surrogate pair could not be sent to the process of pytest that reports."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def plain_celery(redis_server: RedisServer) -> Celery:
    """A Celery app with Celery's own result backend and base class of tasks."""
    app = Celery(
        "plain", broker="memory://", backend=f"{__name__}:PlainBackend+{redis_server.url}", set_as_current=False
    )
    app.conf.result_extended = True
    app.finalize()  # registers the shared tasks
    return app


def check(app: Flask, plain_celery: Celery, runs: list[Run]) -> None:
    """Run a launched task and one of the plain app, and compare their states and errors."""
    task_id = start(tasks.noop.s())
    expected = trace(plain_celery, str(uuid4()), runs)

    outcome = trace(app.extensions["celery"], task_id, runs)

    assert (*outcome, row_of(task_id).state) == (*expected, expected[0])
    assert AsyncResult(task_id).state == expected[0]
    assert reconcile_all() == 0


@pytest.mark.both_databases
@pytest.mark.parametrize("found", FOUND)
def test_example_ends_with_state_of_celery(app: Flask, plain_celery: Celery, found: str) -> None:
    check(app, plain_celery, [FOUND[found]])


@pytest.mark.parametrize(
    ("database", "number"), [("sqlite", 50), pytest.param("postgresql", 1000, marks=pytest.mark.exhaustive)]
)
def test_row_ends_with_state_of_celery(app: Flask, plain_celery: Celery, number: int) -> None:
    @settings(
        max_examples=number, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(runs=st.lists(RUNS, min_size=1, max_size=3))
    def check_any(runs: list[Run]) -> None:
        check(app, plain_celery, runs)

    check_any()
