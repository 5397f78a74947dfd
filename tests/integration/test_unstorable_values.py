"""Whatever a task returns or raises, its row ends with the state that Celery gives it."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from celery.app.task import Context
from celery.exceptions import TaskRevokedError
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu.exceptions import EncodeError

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.errors import JobError
from microblog.taskqueue.reconcile import reconcile_all
from microblog.taskqueue.transitions import Writer, claim_task
from tests.support import not_none, tasks
from tests.support.factories import only_job, row_of, start, write_posts
from tests.support.servers import Worker, wait_for
from tests.support.smtp import SmtpServer
from tests.support.values import TEXTS, VALUES

pytestmark = pytest.mark.both_databases


def run_task(app: Flask) -> Context:
    """Launch and claim a task; return its request."""
    task_id = start(tasks.noop.s())
    request = Context({"id": task_id, "hostname": "one@host", "delivery_info": {}})
    request.claim = claim_task(app.extensions["celery"].executor, task_id, "one@host", lease=60, max_crashes=3)
    return request


def examples(number: int) -> Callable[..., Any]:
    return settings(
        max_examples=number, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
    )


@given(value=VALUES)
@examples(40)
def test_any_result_ends_row(app: Flask, value: Any) -> None:
    request = run_task(app)

    app.extensions["celery"].backend.mark_as_done(request.id, value, request=request)

    assert row_of(request.id).state == states.SUCCESS
    assert reconcile_all() == 0


@given(text=TEXTS, kind=st.sampled_from([JobError, RuntimeError, TaskRevokedError]), traceback=TEXTS)
@examples(40)
def test_any_error_ends_row(app: Flask, text: str, kind: type[Exception], traceback: str) -> None:
    backend, request = app.extensions["celery"].backend, run_task(app)
    state = states.REVOKED if kind is TaskRevokedError else states.FAILURE

    backend.store_result(request.id, kind(text), state, traceback=traceback, request=request)

    assert row_of(request.id).state == state
    assert reconcile_all() == 0


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({"a": "one\0two"}, {"a": "one\N{REPLACEMENT CHARACTER}two"}),
        (["\\\0", "\\u0000"], {"result": ["\\\N{REPLACEMENT CHARACTER}", "\\u0000"]}),
        ({"\ud800": "\udfff"}, {"\N{REPLACEMENT CHARACTER}": "\N{REPLACEMENT CHARACTER}"}),
        ({"a": math.nan, "b": [math.inf, -math.inf]}, {"a": "NaN", "b": ["Infinity", "-Infinity"]}),
        ([1], {"result": [1]}),
        ({"result": 1}, {"result": {"result": 1}}),
    ],
)
def test_value_is_stored_as_json(app: Flask, value: Any, stored: Any) -> None:
    request = run_task(app)

    app.extensions["celery"].backend.mark_as_done(request.id, value, request=request)

    assert row_of(request.id).result == stored


@pytest.mark.parametrize(
    "value",
    [
        {"result": 1},
        datetime(2026, 11, 29, 12, tzinfo=UTC),
        date(2026, 11, 29),
        [Decimal("1.50"), UUID(int=7)],
        {"bytes": b"\x00\xff"},
    ],
)
def test_next_step_receives_value_that_redis_has_forgotten(app: Flask, value: Any) -> None:
    backend, request = app.extensions["celery"].backend, run_task(app)

    backend.mark_as_done(request.id, value, request=request)

    assert row_of(request.id).return_value == value == backend.get_result(request.id)


def test_result_that_cannot_be_read_again_fails_task(app: Flask) -> None:
    """Celery stores it, and could neither read it nor send it to the next step."""
    backend, request = app.extensions["celery"].backend, run_task(app)

    with pytest.raises(EncodeError, match="cannot be decoded"):
        backend.mark_as_done(request.id, {"__type__": "unknown", "__value__": 1}, request=request)

    backend.mark_as_failure(request.id, JobError({"__type__": "unknown", "__value__": 1}), request=request)
    assert row_of(request.id).state == backend.get_state(request.id) == states.FAILURE


def test_value_that_no_serializer_knows_fails_task(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """Celery refuses such a result in Redis; here the row is reached by another way."""
    backend, request = app.extensions["celery"].backend, run_task(app)

    backend._store_in_row(Writer.of([request.id], request), object(), states.SUCCESS, None, request)

    row = row_of(request.id)
    assert row.state == states.FAILURE
    assert not_none(row.error).startswith("Something went wrong on our side.")
    assert "contains a value that the database cannot store" in caplog.text
    assert reconcile_all() == 0


def test_characters_that_no_database_stores_are_replaced(app: Flask) -> None:
    request = run_task(app)

    app.extensions["celery"].backend.store_result(request.id, JobError("a\0b"), states.FAILURE, request=request)

    row = row_of(request.id)
    assert (row.state, row.error) == (states.FAILURE, "a\N{REPLACEMENT CHARACTER}b")


def test_long_texts_are_cut(app: Flask) -> None:
    request = run_task(app)

    app.extensions["celery"].backend.store_result(
        request.id, JobError("x" * 1_000_000), states.FAILURE, traceback="y" * 1_000_000, request=request
    )

    row = row_of(request.id)
    assert (len(not_none(row.error)), len(not_none(row.traceback))) == (10_000, 100_000)


@pytest.mark.parametrize("code", [550, pytest.param(450, marks=pytest.mark.exhaustive)])
def test_reply_of_mail_server_may_have_any_character(
    app: Flask, make_user: Callable[..., User], worker: Worker, smtp_server: SmtpServer, code: int
) -> None:
    user = make_user()
    write_posts(user, ["one"])
    smtp_server.answer = f"{code} mailbox\0 full"
    user.launch_task("export_posts", "Export")
    db.session.commit()

    expected = states.FAILURE if code == 550 else states.RETRY
    wait_for(lambda: only_job(user).steps[1].state == expected, what=f"the mail is {expected}")

    mail = only_job(user).steps[1]
    assert f"{code} mailbox\N{REPLACEMENT CHARACTER} full" in not_none(mail.error)
    assert (mail.crashes, mail.attempts) == (0, 1)
