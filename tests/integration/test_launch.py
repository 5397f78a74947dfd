"""launch(): rows and messages are written together, and a user has one unfinished job of a kind."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Signature, chain, chord, group
from flask import Flask

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.taskqueue.errors import AlreadyRunning
from microblog.taskqueue.launch import launch, launch_task
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import tasks
from tests.support.factories import rows_of, start, states_of
from tests.support.servers import TIMEOUT, Postgres, RedisServer, Worker, wait_for


def queued(redis_server: RedisServer, queue: str = "default") -> int:
    """Return the number of messages in a queue."""
    return redis_server.waiting(queue)


def rows() -> list[Task]:
    return list(db.session.scalars(sa.select(Task).order_by(Task.root_id, Task.position)))


@pytest.mark.both_databases
def test_rollback_leaves_neither_row_nor_message(app: Flask, redis_server: RedisServer) -> None:
    launch(chain(tasks.add.s(1, 2), tasks.noop.s()))

    db.session.rollback()
    db.session.commit()

    assert rows() == []
    assert queued(redis_server) == 0


@pytest.mark.both_databases
def test_nothing_is_published_before_commit(app: Flask, redis_server: RedisServer) -> None:
    launch(tasks.add.s(1, 2))
    assert queued(redis_server) == 0

    db.session.commit()

    assert queued(redis_server) == 1


@pytest.mark.both_databases
def test_released_savepoint_publishes_nothing(app: Flask, redis_server: RedisServer) -> None:
    with db.session.begin_nested():
        launch(tasks.add.s(1, 2))
    assert queued(redis_server) == 0

    db.session.commit()

    assert queued(redis_server) == 1


@pytest.mark.both_databases
def test_savepoint_rollback_discards_only_its_launches(app: Flask, redis_server: RedisServer) -> None:
    kept = launch(tasks.add.s(1, 2))
    savepoint = db.session.begin_nested()
    launch(tasks.add.s(3, 4))
    savepoint.rollback()

    db.session.commit()

    assert [row.id for row in rows()] == [kept.id]
    assert queued(redis_server) == 1


@pytest.mark.both_databases
def test_only_first_step_is_published(app: Flask, redis_server: RedisServer) -> None:
    root = launch(chain(tasks.add.s(1, 2), tasks.noop.s()), description="Adding")
    db.session.commit()

    first, second = rows()
    assert first.id == root.id == first.root_id == second.root_id
    assert [first.position, second.position] == [0, 1]
    assert [first.description, second.description] == ["Adding", "Nothing"]
    assert [first.state, second.state] == ["PENDING", "PENDING"]
    assert first.published_at is not None
    assert second.published_at is None
    assert queued(redis_server) == 1


def test_message_carries_task_id_and_request_id(app: Flask, worker: Worker) -> None:
    with app.test_request_context(headers={"X-Request-ID": "abc-123"}):
        app.preprocess_request()
        root = launch(tasks.add.s(1, 2))
        db.session.commit()

    wait_for(lambda: f'"request_id": "abc-123", "task_id": "{root.id}"' in worker.text())


@pytest.mark.both_databases
@pytest.mark.parametrize("argument", [object(), float("nan"), {1, 2}, {"__type__": "unknown", "__value__": 1}])
def test_launch_refuses_non_json_argument(app: Flask, argument: object) -> None:
    with pytest.raises(TypeError, match="the arguments of add cannot be sent as JSON"):
        launch(tasks.add.s(argument, 2))

    assert rows() == []


@pytest.mark.both_databases
@pytest.mark.parametrize("argument", [utcnow(), uuid.UUID(int=7), Decimal("1.50"), b"bytes"])
def test_launch_accepts_what_kombu_encodes(app: Flask, worker: Worker, argument: object) -> None:
    task_id = start(tasks.echo.s(argument))

    wait_for(lambda: states_of(task_id) == ["SUCCESS"])
    assert rows_of(task_id)[0].return_value["args"] == [argument]


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (group(tasks.noop.s(), tasks.noop.s()), "is a group"),
        (chord([tasks.noop.s()], tasks.noop.s()), "is a chord"),
        (chain(tasks.noop.s(), group(tasks.noop.s(), tasks.noop.s()), tasks.noop.s()), "is a chord"),
        (tasks.noop.s().set(link=[tasks.noop.s()]), "has a callback"),
        (tasks.noop.s().set(countdown=60), "has the option countdown"),
        (tasks.noop.s().set(serializer="pickle"), "has the serializer pickle"),
        (tasks.noop.s().set(queue="slow"), "has the queue slow, which is none of exports, mail, default"),
        (chain(tasks.noop.s(), tasks.noop.s()).set(queue="mail"), "has options"),
        (chain(), "has options or no tasks"),
        (chain(tasks.noop.s(), tasks.noop.s()).on_error(tasks.noop.s()), "has a callback"),
    ],
)
def test_launch_refuses_groups_and_callbacks(app: Flask, job: Signature, reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        launch(job)

    assert rows() == []


def test_launch_refuses_task_that_expires(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.extensions["celery"].tasks["noop"], "expires", 60)

    with pytest.raises(TypeError, match="noop expires"):
        launch(tasks.noop.s())


def test_launch_mirrors_nested_chains_in_order(app: Flask) -> None:
    launch(chain(tasks.add.s(1, 2), chain(tasks.noop.s(), tasks.record.s("runs_file"))))

    assert [(row.position, row.name) for row in rows()] == [(0, "add"), (1, "noop"), (2, "record")]


def test_launch_task_builds_the_registered_chain(app: Flask, make_user: Callable[..., User]) -> None:
    make_user().launch_task("export_posts", "Export")

    assert [(row.position, row.name, row.queue) for row in rows()] == [
        (0, "export_posts", "exports"),
        (1, "email_export", "mail"),
    ]


def test_launch_task_refuses_an_unknown_name(app: Flask) -> None:
    with pytest.raises(LookupError, match="no job and no task is called 'nothing'"):
        launch_task("nothing", "")


@pytest.mark.both_databases
def test_launch_refused_while_same_job_unfinished(app: Flask, make_user: Callable[..., User]) -> None:
    user = make_user()
    first = user.launch_task("noop", "Once")
    db.session.commit()

    with pytest.raises(AlreadyRunning) as refusal:
        user.launch_task("noop", "Twice")
    db.session.commit()

    assert refusal.value.task is not None
    assert refusal.value.task.id == first.id
    assert len(rows()) == 1
    make_user("ben").launch_task("noop", "Another's")
    db.session.commit()
    assert len(rows()) == 2


@pytest.mark.both_databases
def test_refused_launch_preserves_transaction_of_caller(app: Flask, make_user: Callable[..., User]) -> None:
    user = make_user()
    user.launch_task("noop", "Once")
    db.session.commit()

    db.session.add(User(username="ben", email="ben@example.com", password_hash=""))
    with pytest.raises(AlreadyRunning):
        launch(chain(tasks.add.s(1, 2), tasks.noop.s()), user_id=user.id)
    db.session.commit()

    assert db.session.scalar(sa.select(User).where(User.username == "ben")) is not None
    assert [row.name for row in rows()] == ["noop"]


@pytest.mark.both_databases
def test_concurrent_launches_create_one_job(
    app: Flask, make_user: Callable[..., User], redis_server: RedisServer
) -> None:
    user_id = make_user().id
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def click() -> None:
        with app.app_context():
            user = db.session.get(User, user_id)
            assert user is not None
            barrier.wait()
            try:
                user.launch_task("export_posts", "Export")
                db.session.commit()
                outcomes.append("started")
            except AlreadyRunning:
                db.session.rollback()
                outcomes.append("refused")

    clicks = [threading.Thread(target=click) for _ in range(2)]
    for thread in clicks:
        thread.start()
    for thread in clicks:
        thread.join()

    assert sorted(outcomes) == ["refused", "started"]
    assert [row.name for row in rows()] == ["export_posts", "email_export"]
    assert queued(redis_server, "exports") == 1


@pytest.mark.both_databases(each_run=False)
@pytest.mark.exhaustive
def test_launch_while_redis_is_down_runs_later(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    runs_file = tmp_path / "runs_file"
    with redis_server.stopped():
        task_id = launch(tasks.record.s(str(runs_file))).id
        db.session.commit()
        assert rows()[0].published_at is None

    monkeypatch.setattr("microblog.taskqueue.reconcile.GRACE", timedelta(0))
    reconcile_all()
    make_worker()

    def state() -> bool:
        db.session.rollback()
        row = db.session.get(Task, task_id, populate_existing=True)
        return row is not None and row.state == "SUCCESS"

    wait_for(state)
    assert runs_file.read_text() == "ran\n"


@pytest.mark.parametrize("database", ["postgresql"])
def test_launch_survives_database_restart(app: Flask, redis_server: RedisServer, postgres_server: Postgres) -> None:
    for _ in range(2):
        postgres_server.cut_connections(str(db.engine.url.database))
        launch(tasks.noop.s())
        db.session.commit()

    assert None not in [row.published_at for row in rows()]
    assert queued(redis_server) == 2


@pytest.mark.exhaustive
def test_worker_refuses_pickle_message(app: Flask, make_worker: Callable[..., Worker], tmp_path: Path) -> None:
    runs_file = tmp_path / "runs_file"
    tasks.record.apply_async(args=[str(runs_file)], serializer="pickle")
    last = tasks.add.delay(1, 2)

    make_worker(concurrency=1, C_FORCE_ROOT="1")  # a worker that accepts pickle refuses to run as root

    assert last.get(timeout=TIMEOUT) == 3
    assert not runs_file.exists()


def test_export_message_contains_only_user_id(
    app: Flask, make_user: Callable[..., User], redis_server: RedisServer
) -> None:
    user = make_user()
    user.launch_task("export_posts", "Export")
    db.session.commit()

    [raw] = redis_server.messages("exports")
    assert isinstance(raw, str)

    message = json.loads(raw)
    assert message["content-type"] == "application/json"
    args, kwargs, _embedded = json.loads(base64.b64decode(message["body"]))
    assert (args, kwargs) == ([user.id], {})
    for private in (user.email, user.username, user.password_hash):
        assert private not in raw + base64.b64decode(message["body"]).decode()


@pytest.mark.both_databases(each_run=False)
def test_duplicate_message_runs_once(
    app: Flask, make_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path
) -> None:
    runs_file = tmp_path / "runs_file"
    task_id = launch(tasks.record.s(str(runs_file))).id
    db.session.commit()
    [message] = redis_server.messages("default")
    redis_server.client.rpush(redis_server.key("default"), message, message)

    worker = make_worker()

    refused = [f"{task_id} is SUCCESS already", f"{task_id} is being run by another worker"]
    wait_for(lambda: sum(worker.text().count(sentence) for sentence in refused) >= 2)
    wait_for(lambda: rows_of(task_id)[0].finished_at, what="the accepted message's task ends")
    assert runs_file.read_text() == "ran\n"
