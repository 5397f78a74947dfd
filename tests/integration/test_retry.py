"""An automatic retry is published once the row waits for it, and a message from before it is refused."""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import UTC, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from celery import chain
from celery.exceptions import Retry
from flask import Flask

from microblog.clock import utcnow
from microblog.database import AutocommitExecutor, DatabaseUnavailable
from microblog.extensions import db
from microblog.taskqueue import errors, result_backend, transitions
from microblog.taskqueue.launch import launch, publish
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import decisions, reconcile_all
from tests.support import not_none, tasks
from tests.support.factories import add_task, crash, make_older, row_of, rows_of, run_of, start
from tests.support.servers import RedisServer

pytestmark = pytest.mark.both_databases

LEASE = 600.0  # seconds: no lease expires by itself during a test


def request_retry(app: Flask, backend: Any, task_id: str) -> None:
    """Run the task flaky until it requests a retry, and store that as Celery does."""
    following = [row.signature for row in rows_of(task_id)[1:]]
    with run_of(app, task_id, "flaky", 99, chain=following) as flaky:
        with pytest.raises(Retry) as retry:
            flaky.run(99)
        backend.mark_as_retry(task_id, retry.value.exc, request=flaky.request)


@pytest.fixture
def flaky_id(app: Flask, redis_server: RedisServer) -> str:
    """The id of a launched task that requests a retry in each run; its message is gone."""
    row = launch(chain(tasks.flaky.s(99), tasks.noop.s()))
    db.session.commit()
    redis_server.client.delete(redis_server.key("default"))
    return row.id


def test_retry_is_stored_before_it_is_published(
    app: Flask, backend: Any, flaky_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[Any] = []

    def publish(executor: AutocommitExecutor, signatures: list[Any]) -> bool:
        row = row_of(flaky_id)
        published.append((row.state, row.published_at, [each["task"] for each in signatures]))
        return True

    monkeypatch.setattr(result_backend, "publish", publish)

    request_retry(app, backend, flaky_id)

    assert published == [("RETRY", None, ["flaky", "noop"])]


@pytest.mark.parametrize("redis_refuses", [False, True])
def test_retry_message_has_number_of_retry(
    app: Flask, backend: Any, flaky_id: str, redis_server: RedisServer, redis_refuses: bool
) -> None:
    """At once as well as by reconcile, so that max_retries limits the retries."""
    with redis_server.refusing("READONLY") if redis_refuses else contextlib.nullcontext():
        request_retry(app, backend, flaky_id)
    assert (row_of(flaky_id).published_at is None) is redis_refuses
    if redis_refuses:
        make_older(flaky_id, eta=30)
        assert reconcile_all() == 1

    [message] = redis_server.messages("default")
    headers, body = json.loads(message)["headers"], json.loads(base64.b64decode(json.loads(message)["body"]))
    assert (headers["id"], headers["retries"]) == (flaky_id, 1)
    assert body[0] == [99]
    assert [step["task"] for step in body[2]["chain"]] == ["noop"]


def test_message_from_before_a_retry_is_refused(
    app: Flask, executor: AutocommitExecutor, backend: Any, flaky_id: str
) -> None:
    """A surplus message must not start the retry early, nor with the counter of an earlier attempt."""
    request_retry(app, backend, flaky_id)

    with pytest.raises(errors.Superseded):
        transitions.claim_task(executor, flaky_id, "two@host", lease=LEASE, max_crashes=3, retries=0)
    retried = transitions.claim_task(executor, flaky_id, "two@host", lease=LEASE, max_crashes=3, retries=1)

    assert not_none(retried).attempt == 2


def test_last_of_two_retries_in_a_run_counts(
    app: Flask, backend: Any, flaky_id: str, redis_server: RedisServer
) -> None:
    with run_of(app, flaky_id, "flaky", 99) as flaky:
        flaky.retry(countdown=1, throw=False)
        flaky.retry(args=[utcnow()], countdown=60, throw=False)
        assert redis_server.waiting("default") == 0

        backend.mark_as_retry(flaky_id, OSError("not yet"), request=flaky.request)

    row = row_of(flaky_id)
    assert not_none(row.eta) > utcnow() + timedelta(seconds=30)
    assert not_none(row.retry_signature)["args"][0]["__type__"] == "datetime"


def test_retry_waits_for_an_unavailable_database(
    app: Flask, backend: Any, flaky_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its signature and its number are stored nowhere else."""
    store_retry = transitions.store_retry
    faults = [DatabaseUnavailable("UPDATE", {}, Exception("the connection was cut")) for _ in range(2)]
    pauses: list[float] = []

    def fail_twice(*arguments: Any) -> Any:
        if faults:
            raise faults.pop()
        return store_retry(*arguments)

    monkeypatch.setattr(result_backend, "store_retry", fail_twice)
    monkeypatch.setattr("microblog.taskqueue.result_backend.time.sleep", pauses.append)

    request_retry(app, backend, flaky_id)

    assert len(pauses) == 2
    assert (row_of(flaky_id).state, row_of(flaky_id).retries) == ("RETRY", 1)


def test_superseded_retry_is_not_published(
    app: Flask, executor: AutocommitExecutor, backend: Any, flaky_id: str, redis_server: RedisServer
) -> None:
    """A process that reconciles has read the row before the retry ran and requested the next one."""
    request_retry(app, backend, flaky_id)
    redis_server.client.delete(redis_server.key("default"))
    earlier = not_none(row_of(flaky_id).retry_signature)
    values = {"published_at": None, "retries": 2, "retry_signature": earlier | {"options": {"retries": 2}}}
    db.session.execute(sa.update(Task).where(Task.id == flaky_id).values(values))
    db.session.commit()

    assert not publish(executor, [earlier])

    assert redis_server.waiting("default") == 0
    assert row_of(flaky_id).published_at is None


@pytest.mark.parametrize("zone", [None, UTC])
def test_retry_has_the_eta_that_the_task_requests(
    app: Flask, backend: Any, flaky_id: str, zone: timezone | None
) -> None:
    """Celery takes a time without a zone as one in the zone of the app, which is UTC."""
    with run_of(app, flaky_id, "flaky", 99) as flaky:
        flaky.retry(eta=(utcnow() + timedelta(seconds=60)).replace(tzinfo=zone), throw=False)
        backend.mark_as_retry(flaky_id, OSError("not yet"), request=flaky.request)

    assert timedelta(seconds=30) < not_none(row_of(flaky_id).eta) - utcnow() <= timedelta(seconds=60)


def test_retry_with_a_pause_is_published_when_it_is_due(
    app: Flask, backend: Any, flaky_id: str, redis_server: RedisServer
) -> None:
    with run_of(app, flaky_id, "flaky", 99) as flaky:
        flaky.retry(countdown=60, throw=False)
        backend.mark_as_retry(flaky_id, OSError("not yet"), request=flaky.request)
    assert reconcile_all() == 0
    assert redis_server.waiting("default") == 0

    make_older(flaky_id, eta=0)

    assert reconcile_all() == 1
    assert reconcile_all() == 0
    assert redis_server.waiting("default") == 1


def test_after_an_outage_only_what_is_due_is_published_at_first(app: Flask) -> None:
    """Workers whose leases have expired meanwhile renew them first."""
    held = start(tasks.noop.s())
    crash(app, held)
    make_older(held, published_at=30)
    add_task("due", "RETRY", eta=utcnow() - timedelta(seconds=1))

    assert [decision.step.id for decision in decisions(only_due=True)] == ["due"]
    assert {decision.step.id for decision in decisions()} == {"due", held}
