"""Cancel and retry many jobs at once: the same promises as for one job, in a few statements for each batch."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, NoReturn

import pytest
import redis
import sqlalchemy as sa
from celery import Signature, chain
from celery.exceptions import BackendStoreError, TaskRevokedError
from celery.result import AsyncResult
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.cli import EXIT_UNAVAILABLE
from microblog.database import DatabaseUnavailable
from microblog.extensions import db
from microblog.jobs.services import cancel_jobs
from microblog.monitoring import actions
from microblog.monitoring.cli import bulk
from microblog.taskqueue import launch as launch_module
from microblog.taskqueue import queues, result_backend, states
from microblog.taskqueue.errors import CancelRequested
from microblog.taskqueue.interface import TaskChange, task_changed
from microblog.taskqueue.launch import launch, launch_jobs, new_rows
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from microblog.taskqueue.transitions import (
    StoredStep,
    Writer,
    claim_task,
    mark_published,
    renew_leases,
    store_revoked,
)
from microblog.taskqueue.worker import CeleryApp
from tests.support.console import Run, commands
from tests.support.factories import (
    add_task,
    make_older,
    row_of,
    start,
    start_job_for,
    state_of,
    states_of,
    store_result_in_redis,
)
from tests.support.servers import RedisServer, wait_for
from tests.support.tasks import echo, noop, record

FailAfter = Callable[..., None]


@pytest.fixture
def run(app: Flask) -> Run:
    return commands(app, "tasks")


@pytest.fixture
def announced(app: Flask) -> Iterator[list[str]]:
    """The ids of the tasks that were announced as REVOKED, in order."""
    ids: list[str] = []

    def record(_sender: object, change: TaskChange) -> None:
        if change.state == states.REVOKED:
            ids.append(change.id)

    with task_changed.connected_to(record):
        yield ids


def lose_database(*_arguments: object) -> NoReturn:
    raise DatabaseUnavailable("", {}, OSError("gone"))


def waiting_ids(redis_server: RedisServer, newest: int = 0) -> list[str]:
    """Return the ids of the tasks whose messages wait in the queue, without the `newest` messages, newest first."""
    messages = redis_server.client.lrange(redis_server.key("default"), newest, -1)
    return [json.loads(text)["headers"]["id"] for text in messages]


@pytest.mark.both_databases(each_run=False)
class TestEndingSeveralTasks:
    def test_only_unheld_and_unfinished_tasks_end(self, app: Flask, backend: Any) -> None:
        first, second, held = start(noop.s()), start(noop.s(), noop.s()), start(noop.s())
        claim_task(app.extensions["celery"].executor, held, "one@host", lease=60, max_crashes=3)
        add_task("done", states.SUCCESS)

        backend.end([first, held, "done", second], TaskRevokedError("cancelled"))

        assert (state_of(first), states_of(second)) == (states.REVOKED, [states.REVOKED, states.REVOKED])
        assert [AsyncResult(task_id).state for task_id in (first, second)] == [states.REVOKED, states.REVOKED]
        assert (state_of(held), state_of("done")) == (states.STARTED, states.SUCCESS)
        assert [AsyncResult(task_id).state for task_id in (held, "done")] == [states.PENDING, states.PENDING]

    def test_open_pages_learn_of_each_task(self, app: Flask, backend: Any, announced: list[str]) -> None:
        ids = [start(noop.s()) for _ in range(3)]

        backend.end(ids, TaskRevokedError("cancelled"))

        assert sorted(announced) == sorted(ids)

    def test_row_is_announced_though_database_fails_for_others(
        self, app: Flask, backend: Any, announced: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        english, spanish = (start(noop.s().set(headers={"locale": locale})) for locale in ("en", "es"))

        def store_english(executor: Any, writer: Writer, *details: Any) -> list[StoredStep]:
            return store_revoked(executor, writer, *details) if writer.task_ids == [english] else lose_database()

        with monkeypatch.context() as patch:
            patch.setattr(result_backend, "store_revoked", store_english)
            backend.end([english, spanish], TaskRevokedError("cancelled"))
        assert (state_of(english), state_of(spanish), announced) == (states.REVOKED, states.PENDING, [english])

        backend.end([english, spanish], TaskRevokedError("cancelled"))
        assert (state_of(english), state_of(spanish), announced) == (states.REVOKED, states.REVOKED, [english, spanish])

    def test_row_is_announced_though_redis_fails_for_next_step(
        self, app: Flask, backend: Any, announced: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job_id = start(noop.s(), noop.s())
        store_in_redis = backend._store_in_redis

        def fail_for_next_step(task_ids: list[str], *arguments: Any, **options: Any) -> None:
            if task_ids != [job_id]:
                raise BackendStoreError("Redis is away")
            store_in_redis(task_ids, *arguments, **options)

        monkeypatch.setattr(backend, "_store_in_redis", fail_for_next_step)

        backend.end([job_id], TaskRevokedError("cancelled"))

        assert (states_of(job_id), announced) == ([states.REVOKED, states.PENDING], [job_id])

    def test_row_is_announced_though_database_fails_for_next_step(
        self, app: Flask, backend: Any, announced: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job_id = start(noop.s(), noop.s())
        monkeypatch.setattr(backend, "_advance_chain", lose_database)

        backend.end([job_id], TaskRevokedError("cancelled"))

        assert (states_of(job_id), announced) == ([states.REVOKED, states.PENDING], [job_id])

    def test_tasks_end_though_redis_fails_for_one_that_has_a_result(
        self, app: Flask, backend: Any, announced: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        succeeded, waiting = start(noop.s()), start(noop.s())
        store_result_in_redis(app, succeeded, states.SUCCESS, {})

        def lose_redis(_task_id: str) -> bool:
            raise redis.ConnectionError("connection refused")

        monkeypatch.setattr(backend, "copy_result", lose_redis)
        with pytest.raises(redis.ConnectionError):
            backend.end([succeeded, waiting], TaskRevokedError("cancelled"))

        assert (state_of(succeeded), state_of(waiting), announced) == (states.PENDING, states.REVOKED, [waiting])

    def test_result_that_only_redis_has_is_kept(self, app: Flask, backend: Any) -> None:
        waiting, succeeded = start(noop.s()), start(noop.s())
        store_result_in_redis(app, succeeded, states.SUCCESS, {})

        backend.end([succeeded, waiting], TaskRevokedError("cancelled"))

        assert (state_of(succeeded), state_of(waiting)) == (states.SUCCESS, states.REVOKED)
        assert [AsyncResult(task_id).state for task_id in (succeeded, waiting)] == [states.SUCCESS, states.REVOKED]

    def test_error_is_in_language_of_each_user(self, app: Flask, backend: Any) -> None:
        ids = [start(noop.s().set(headers={"locale": locale})) for locale in ("en", "es")]

        backend.end(ids, TaskRevokedError("cancelled"))

        assert [row_of(task_id).error for task_id in ids] == ["It was cancelled.", "Se canceló."]


@pytest.mark.both_databases(each_run=False)
class TestLaunchingSeveralJobs:
    def test_all_are_published_after_commit(self, app: Flask, redis_server: RedisServer) -> None:
        roots = [launch(noop.s()) for _ in range(3)]
        assert redis_server.waiting("default") == 0

        db.session.commit()

        assert redis_server.waiting("default") == 3
        assert all(root.published_at for root in roots)

    def test_job_that_shares_a_step_with_another_one_is_refused(self, app: Flask, susan: User) -> None:
        jobs = [new_rows(chain(*steps), user_id=susan.id) for steps in ([noop.s(), echo.s()], [echo.s(), record.s()])]

        first, second = launch_jobs(jobs)
        db.session.commit()

        assert first is not None
        assert second is None
        assert states_of(first.id) == [states.PENDING, states.PENDING]
        assert db.session.scalar(sa.select(sa.func.count()).select_from(Task)) == 2

    def test_first_row_of_each_job_is_created_first(self, app: Flask) -> None:
        """SQLAlchemy divides more than a thousand rows among several statements."""
        roots = launch_jobs([new_rows(chain(noop.s(), noop.s(), noop.s())) for _ in range(400)])

        given = {root.id: root.created_at for root in roots if root is not None}
        stored = db.session.execute(sa.select(Task.id, Task.root_id, Task.position, Task.created_at)).all()
        assert len(stored) == 3 * len(given) == 1200
        assert {row.id: row.created_at for row in stored if row.position == 0} == given
        assert all(row.created_at >= given[row.root_id] for row in stored)

    def test_rows_are_inserted_in_order_of_users(
        self, app: Flask, make_user: Callable[..., User], database: str
    ) -> None:
        """Two transactions that launch the same jobs wait for each other in one direction only."""
        users = [make_user(name).id for name in ("susan", "david", "maria")]

        launch_jobs([new_rows(noop.s(), user_id=user_id) for user_id in reversed(users)])

        inserted = sa.text("rowid" if database == "sqlite" else "ctid")
        assert db.session.scalars(sa.select(Task.user_id).order_by(inserted)).all() == users

    def test_unavailable_broker_is_tried_once(
        self, app: Flask, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried: list[str] = []
        send = launch_module._send

        def count_and_send(task_id: str, *arguments: Any) -> bool:
            tried.append(task_id)
            return send(task_id, *arguments)

        monkeypatch.setattr(launch_module, "_send", count_and_send)
        with redis_server.stopped():
            ids = [launch(noop.s()).id for _ in range(3)]
            db.session.commit()

        assert len(tried) == 1
        assert [row_of(task_id).published_at for task_id in ids] == [None, None, None]

    @pytest.mark.parametrize(
        ("error", "sent"), [(redis.ConnectionError("refused"), {0}), (ValueError("it cannot be encoded"), {0, 2})]
    )
    def test_only_messages_that_were_not_sent_are_sent_again(
        self, app: Flask, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, error: Exception, sent: set[int]
    ) -> None:
        apply_async, calls = Signature.apply_async, count()

        def fail_second(signature: Signature, *arguments: Any, **options: Any) -> Any:
            if next(calls) == 1:
                raise error
            return apply_async(signature, *arguments, **options)

        with monkeypatch.context() as failing:
            failing.setattr(Signature, "apply_async", fail_second)
            ids = [launch(noop.s()).id for _ in range(3)]
            db.session.commit()
        published = {number for number, task_id in enumerate(ids) if row_of(task_id).published_at is not None}
        for task_id in ids:
            make_older(task_id, created_at=60)

        reconcile_all()

        assert published == sent
        assert sorted(waiting_ids(redis_server)) == sorted(ids)


class TestRemovingMessages:
    @pytest.fixture
    def ids(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Ten waiting tasks, the oldest first, in a queue that is read in windows of three messages."""
        monkeypatch.setattr(queues, "WINDOW", 3)
        return [start(noop.s()) for _ in range(10)]

    def test_only_messages_of_given_tasks_are_removed(self, ids: list[str], redis_server: RedisServer) -> None:
        key = redis_server.key("default")
        malformed = [b"removed", b"\xff", b"[" * 10**5, b'{"headers": null}', b'{"headers": {"id": ["x"]}}']
        redis_server.client.lpush(key, *malformed)
        removed = {ids[0], *ids[3:8], "unknown"}

        assert queues.remove_messages({"default": removed, "mail": {ids[1]}}) == 6

        assert waiting_ids(redis_server, newest=len(malformed)) == [ids[9], ids[8], ids[2], ids[1]]

    def test_messages_sent_or_taken_meanwhile_are_kept_or_gone(
        self, ids: list[str], redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While a queue is read, a worker takes its oldest messages, and new ones are sent."""
        key = redis_server.key("default")
        read = queues._read_window
        sent = []

        def read_and_change(*arguments: Any) -> list[bytes]:
            window = read(*arguments)
            redis_server.client.rpop(key)
            sent.append(start(noop.s()))
            return window

        monkeypatch.setattr(queues, "_read_window", read_and_change)

        queues.remove_messages({"default": set(ids)})

        left = waiting_ids(redis_server)
        assert not set(left) & set(ids)
        assert set(left) == set(sent[-len(left) :])


class TestBatches:
    @pytest.fixture(autouse=True)
    def _small_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(actions, "BATCH", 2)

    @pytest.fixture
    def fail_after(self, monkeypatch: pytest.MonkeyPatch) -> FailAfter:
        """A function that lets a service of actions.py lose the database when it has done its work so many times."""
        services = dict(vars(actions))

        def lose_database_after(name: str, calls: int) -> None:
            results = iter(range(1, 10))

            def act(jobs: Any) -> Any:
                result = services[name](jobs)
                if next(results) == calls:
                    lose_database()
                return result

            monkeypatch.setattr(actions, name, act)

        return lose_database_after

    @pytest.mark.both_databases(each_run=False)
    def test_cancel_leaves_no_message(self, app: Flask, run: Run, redis_server: RedisServer) -> None:
        kept = start(echo.s())
        ids = [start(noop.s()) for _ in range(5)]
        held = start(noop.s())
        claim_task(app.extensions["celery"].executor, held, "one@host", lease=60, max_crashes=3)

        result = run("cancel", "--name", "noop", "--yes")

        assert (result.exit_code, result.stdout.count(": cancelled.")) == (0, 5)
        assert f"{held}: cancellation requested" in result.stdout
        assert {state_of(task_id) for task_id in ids} == {states.REVOKED}
        assert waiting_ids(redis_server) == [held, kept]

    def test_refused_job_does_not_stop_others(self, run: Run) -> None:
        first, last = start(noop.s()), start(noop.s())
        add_task("done", states.SUCCESS)

        result = run("cancel", first, "done", "unknown", last, "--json")

        answers = json.loads(result.stdout)
        assert result.exit_code == 2
        assert [(each["asked"], each["done"]) for each in answers] == [
            (first, True),
            ("done", False),
            ("unknown", False),
            (last, True),
        ]
        assert result.stderr == "done: It has already ended.\nunknown: there is no such task.\n"

    @pytest.mark.both_databases(each_run=False)
    def test_one_job_of_user_and_kind_is_retried(self, run: Run, susan: User) -> None:
        for number in range(3):
            add_task(f"own-{number}", states.FAILURE, seconds_ago=number, user_id=susan.id)
        add_task("other", states.FAILURE, seconds_ago=9)

        result = run("retry", "--state", "FAILURE", "--yes")

        assert result.exit_code == 1
        assert result.stdout.count("retried as") == 2
        assert result.stderr.count("already running") == 2
        retried = db.session.scalars(sa.select(Task.retried_from).where(Task.retried_from.is_not(None)))
        assert set(retried) == {"own-0", "other"}

    def test_progress_is_printed_to_stderr(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bulk, "PROGRESS_INTERVAL", 0.0)
        ids = [start(noop.s()) for _ in range(5)]

        result = run("cancel", *ids, "--json")

        assert [each["asked"] for each in json.loads(result.stdout)] == ids
        assert result.stderr == "2 of 5 jobs.\n4 of 5 jobs.\n"

    def test_interrupt_ends_after_batch(
        self, run: Run, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [start(noop.s()) for _ in range(5)]
        previous = signal.getsignal(signal.SIGINT)

        def interrupt_and_cancel(job_ids: list[str]) -> set[str]:
            signal.raise_signal(signal.SIGINT)
            return cancel_jobs(job_ids)

        monkeypatch.setattr(actions, "cancel_jobs", interrupt_and_cancel)

        result = run("cancel", *ids)

        assert result.exit_code == 130
        assert result.stderr.startswith("Stopped: 2 of 5 jobs were done")
        assert [state_of(task_id) for task_id in ids] == [states.REVOKED] * 2 + [states.PENDING] * 3
        assert redis_server.waiting("default") == 3
        assert signal.getsignal(signal.SIGINT) is previous

    def test_cancel_without_redis_is_completed_later(self, run: Run, redis_server: RedisServer) -> None:
        ids = [start(noop.s()) for _ in range(3)]

        with redis_server.stopped():
            result = run("cancel", *ids)

        assert (result.exit_code, result.stdout.count("once Redis and the database are available")) == (0, 3)
        assert reconcile_all() == 3
        assert {state_of(task_id) for task_id in ids} == {states.REVOKED}

    def test_cancel_after_error_is_continued_by_same_command(self, run: Run, fail_after: FailAfter) -> None:
        ids = [start(noop.s()) for _ in range(5)]
        fail_after("cancel_jobs", calls=2)

        stopped = run("cancel", "--state", "PENDING", "--yes", "--json")
        fail_after("cancel_jobs", calls=9)
        continued = run("cancel", "--state", "PENDING", "--yes", "--json")

        assert stopped.exit_code == EXIT_UNAVAILABLE
        assert stopped.stderr.startswith("Stopped: 2 of 5 jobs were done")
        assert "The database is unavailable" in stopped.stderr
        assert (len(json.loads(stopped.stdout)), len(json.loads(continued.stdout))) == (2, 1)
        assert (continued.exit_code, {state_of(task_id) for task_id in ids}) == (0, {states.REVOKED})

    def test_retry_after_error_is_continued_by_same_command(self, run: Run, fail_after: FailAfter) -> None:
        failed = [f"failed-{number}" for number in range(5)]
        for task_id in failed:
            add_task(task_id, states.FAILURE)
        fail_after("retry_jobs", calls=2)

        stopped = run("retry", "--state", "FAILURE", "--yes")
        fail_after("retry_jobs", calls=9)
        continued = run("retry", "--state", "FAILURE", "--yes")

        assert (stopped.exit_code, stopped.stdout.count("retried as")) == (EXIT_UNAVAILABLE, 2)
        assert (continued.exit_code, continued.stdout.count("retried as")) == (0, 3)
        retried = db.session.scalars(sa.select(Task.retried_from).where(Task.retried_from.is_not(None)))
        assert sorted(map(str, retried)) == failed


@pytest.mark.parametrize("number", [1, 3])
def test_job_cannot_be_claimed_once_it_looks_cancelled(
    app: Flask, backend: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A worker may receive the message at any time, also while the states of the batch are stored."""
    ids = [start(noop.s()) for _ in range(number)]
    store, refused = backend._store_in_redis, list[str]()

    def claim_and_store(task_ids: list[str], *arguments: Any, **options: Any) -> None:
        for task_id in task_ids:
            with pytest.raises(CancelRequested):
                claim_task(app.extensions["celery"].executor, task_id, "one@host", lease=60, max_crashes=3)
            refused.append(task_id)
        store(task_ids, *arguments, **options)

    monkeypatch.setattr(backend, "_store_in_redis", claim_and_store)

    cancel_jobs(ids)

    assert sorted(refused) == sorted(ids)
    assert {state_of(task_id) for task_id in ids} == {states.REVOKED}


IDS = ["c", "b", "a"]
CHANGES: dict[str, Callable[[CeleryApp], object]] = {
    "end": lambda celery: celery.backend.end(IDS, TaskRevokedError("cancelled")),
    "cancel": lambda _celery: cancel_jobs(IDS),
    "publish": lambda celery: mark_published(celery.executor, IDS, None),
    "renew": lambda celery: renew_leases(celery.executor, IDS, "one@host", lease=60),
}


@pytest.mark.parametrize("database", ["postgresql"])
@pytest.mark.parametrize("change", CHANGES)
def test_rows_of_batch_are_locked_in_order_of_ids(app: Flask, change: str) -> None:
    """Two batches with the same rows wait for each other in one direction only."""
    for task_id in IDS:
        add_task(task_id, states.STARTED, worker="one@host")

    def act() -> None:
        with app.app_context():
            CHANGES[change](app.extensions["celery"])

    with db.engine.connect() as other, ThreadPoolExecutor() as thread:
        other.execute(sa.select(Task.id).where(Task.id == "b").with_for_update())
        acting = thread.submit(act)
        try:
            wait_for(lambda: lockable_ids() == {"c"}, timeout=10, what="the batch holds a and waits for b")
        finally:
            other.rollback()
        acting.result()


def lockable_ids() -> set[str]:
    """Return the ids of the rows that no transaction has locked."""
    with db.engine.connect() as connection:
        return set(connection.scalars(sa.select(Task.id).with_for_update(skip_locked=True)))


def test_page_removes_messages_of_cancelled_jobs(operator: FlaskClient, susan: User, redis_server: RedisServer) -> None:
    task_id = start_job_for(susan)

    operator.post("/admin/tasks/selected/cancel", data={"job": [task_id]})

    assert state_of(task_id) == states.REVOKED
    assert redis_server.waiting("default") == 0
