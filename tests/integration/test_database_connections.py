"""A server with few connections, and PgBouncer, suffice: no process needs two connections at once."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.accounts.deletion import close_account
from microblog.accounts.models import User
from microblog.database import DatabaseUnavailable
from microblog.extensions import db
from microblog.imports import uploads
from microblog.imports.models import RejectedEntry
from microblog.monitoring import statistics
from microblog.search.tasks import launch_reindexing
from microblog.taskqueue.launch import build_job, launch
from microblog.taskqueue.models import Task
from tests.conftest import hash_of
from tests.support import app_factory, external, imports, not_none
from tests.support.clients import PASSWORD, sign_in
from tests.support.console import commands
from tests.support.factories import start_job_for, state_of, write_posts
from tests.support.pgbouncer import pgbouncer
from tests.support.programs import ScriptProcess
from tests.support.servers import Postgres, PostgresServer, Worker, postgres_binaries, wait_for
from tests.support.smtp import SmtpServer

ON_POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"])
UPGRADE = ["flask", "--app", "microblog", "db", "upgrade"]


def add_users(number: int) -> list[User]:
    """Create users, each with two posts."""
    users = [
        User(username=f"user{n}", email=f"user{n}@example.com", password_hash=hash_of(PASSWORD)) for n in range(number)
    ]
    db.session.add_all(users)
    db.session.commit()
    for user in users:
        write_posts(user, ["first", "second"])
    return users


def launch_all_kinds(users: list[User], app: Flask) -> None:
    """Launch a job of each kind that the application has, exports for all `users` but the last."""
    *exporting, leaving = users
    for user in exporting:
        user.launch_task("export_posts", "Export")
        db.session.commit()
    uploads.start(users[0], [imports.archive(imports.post("imported"), imports.post(7))])
    db.session.commit()
    launch_reindexing()
    for name in app.extensions["celery"].conf.beat_schedule:
        launch(build_job(name))
        db.session.commit()
    close_account(leaving)


def unfinished() -> list[tuple[str, str]]:
    db.session.rollback()
    return [
        (name, state) for name, state in db.session.execute(sa.select(Task.name, Task.state).where(Task.unfinished))
    ]


def failed() -> list[str]:
    return list(db.session.scalars(sa.select(Task.traceback).where(Task.state == "FAILURE")))


def connections(process: int, port: int) -> int:
    """Return the number of connections of a process to a server on this machine."""
    owned = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            owned.add(os.readlink(link))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(row[2].rpartition(":")[2], 16) == port and f"socket:[{row[9]}]" in owned for row in rows)


@pytest.mark.both_databases(each_run=False)
@pytest.mark.exhaustive
def test_every_task_needs_one_connection(app: Flask, make_worker: Callable[..., Worker]) -> None:
    launch_all_kinds(add_users(4), app)

    worker = make_worker(DATABASE_POOL_SIZE="1", RECONCILE_INTERVAL="0.5", TASK_LEASE="5")

    wait_for(lambda: not unfinished(), what="all jobs have ended")
    assert failed() == []
    assert "QueuePool limit" not in worker.text()


def options_with_one_connection(app: Flask) -> dict[str, Any]:
    options: dict[str, Any] = app.config["SQLALCHEMY_ENGINE_OPTIONS"]
    return options | {"pool_size": 1, "pool_timeout": 3.0}


@pytest.fixture
def frugal(app: Flask, make_app: Callable[..., Flask]) -> Flask:
    """An application with one connection to the database."""
    return make_app(SQLALCHEMY_ENGINE_OPTIONS=options_with_one_connection(app), TESTING=False)


@pytest.mark.both_databases
def test_pages_need_one_connection(frugal: Flask, susan: User) -> None:
    susan.is_operator = True
    upload = imports.store(susan, imports.archive(imports.post(7)))
    imported = susan.launch_task("import_posts", "Import", upload.id).id
    db.session.add(RejectedEntry(upload_id=upload.id, place=1, number=1, line=1, reason="It has no text.", url=""))
    waiting, selected = (start_job_for(susan, name) for name in ("noop", "count"))
    paths = {
        rule.rule for rule in frugal.url_map.iter_rules() if "GET" in not_none(rule.methods) and not rule.arguments
    }
    paths -= {"/notifications/stream", "/admin/stream"}  # which never end
    browser = frugal.test_client()
    db.session.remove()
    assert sign_in(browser).status_code == 302

    refusals = browser.get(f"/import/{imported}/refusals")
    statuses = {path: browser.get(path).status_code for path in sorted(paths)}
    statuses |= {
        path: browser.post(path).status_code for path in (f"/tasks/{waiting}/cancel", f"/tasks/{waiting}/retry")
    }
    browser.post("/admin/tasks/selected/cancel", data={"job": [selected]})

    assert refusals.text.count("\n") == 2
    assert {path: status for path, status in statuses.items() if status >= 500} == {"/readyz": 503}  # without a worker
    assert state_of(waiting) == state_of(selected) == "REVOKED"


@pytest.mark.both_databases
@pytest.mark.parametrize("arguments", ["status --timeout 5", "stats", "list", "cancel --name noop --yes", "reconcile"])
def test_operators_commands_need_one_connection(frugal: Flask, susan: User, arguments: str) -> None:
    job = start_job_for(susan)
    db.session.remove()

    result = commands(frugal, "tasks")(*arguments.split())

    assert "QueuePool limit" not in result.output
    assert state_of(job) == ("REVOKED" if "cancel" in arguments else "PENDING")


@ON_POSTGRESQL
def test_lost_connection_of_a_snapshot_is_replaced(frugal: Flask, postgres_server: Postgres) -> None:
    value: Any = None
    with statistics.snapshot() as session:
        session.execute(sa.text("SELECT 1"))
        postgres_server.cut_connections(str(db.engine.url.database))
    with contextlib.suppress(DatabaseUnavailable):  # all connections are in use
        value = db.session.scalar(sa.text("SELECT 2"))

    assert value == 2


@ON_POSTGRESQL
@pytest.mark.parametrize("pooler", ["false", "true"])
def test_times_are_in_utc(environment: dict[str, str], pooler: str) -> None:
    with app_factory.application(environment | {"DATABASE_POOLER": pooler, "PGTZ": "Asia/Tokyo"}):
        assert db.session.scalar(sa.text("SHOW TimeZone")) == "UTC"
        db.session.rollback()
        assert db.session.scalar(sa.text("SHOW TimeZone")) == "UTC"


@ON_POSTGRESQL
@pytest.mark.exhaustive
def test_processes_keep_no_connection_between_tasks(
    app: Flask, make_worker: Callable[..., Worker], postgres_server: Postgres
) -> None:
    worker = make_worker(concurrency=3)
    launch_all_kinds(add_users(6), app)
    wait_for(lambda: not unfinished(), what="all jobs have ended")

    children = worker.process.children()
    assert len(children) >= 3
    wait_for(
        lambda: all(connections(child, postgres_server.port) == 0 for child in children),
        what="no child has a connection",
    )


@pytest.fixture(scope="module")
def small_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server with 20 connections, of which 3 are reserved for its administrator, and for the tests."""
    external.POSTGRESQL.require()
    server = PostgresServer(str(postgres_binaries()), "max_connections=20")
    server.start()
    yield server
    server.stop()


@ON_POSTGRESQL
@pytest.mark.exhaustive
def test_twelve_processes_run_on_twenty_connections(
    environment: dict[str, str], small_server: PostgresServer, make_worker: Callable[..., Worker]
) -> None:
    url = {"DATABASE_URL": small_server.add_owner("postgres")}
    app_factory.migrate(environment, url["DATABASE_URL"])
    with app_factory.application(environment | url | {"DATABASE_POOL_SIZE": "2"}) as app:
        worker = make_worker(**url, concurrency=12, RECONCILE_INTERVAL="0.5")
        launch_all_kinds(add_users(40), app)
        wait_for(lambda: not unfinished(), what="all jobs have ended")

        assert failed() == []
        assert "the database is unavailable" not in worker.text()


@ON_POSTGRESQL
@pytest.mark.exhaustive
def test_site_works_behind_pgbouncer(
    environment: dict[str, str],
    postgres_server: Postgres,
    make_worker: Callable[..., Worker],
    smtp_server: SmtpServer,
    tmp_path: Path,
) -> None:
    name = "pooled"
    postgres_server.drop(name)
    postgres_server.create(name)
    with pgbouncer(postgres_server, sessions=2) as pooler:
        settings = {"DATABASE_URL": pooler.url(name), "DATABASE_POOLER": "true", "PGTZ": "Asia/Tokyo"}
        upgrades = [
            ScriptProcess(UPGRADE, environment | settings, stdout=tmp_path / f"upgrade-{n}.log") for n in range(2)
        ]
        assert [upgrade.wait(120) for upgrade in upgrades] == [0, 0]
        with app_factory.application(environment | settings) as app:
            worker = make_worker(**settings, RECONCILE_INTERVAL="0.5")
            launch_all_kinds(add_users(8), app)
            wait_for(lambda: not unfinished(), what="all jobs have ended")
            assert failed() == []
            assert "the database is unavailable" not in worker.text()
            archives = [
                json.loads(part.get_content())
                for message in smtp_server.messages
                for part in message.iter_attachments()
            ]
    assert len(archives) == 7
    assert {archive["posts"][0]["timestamp"] for archive in archives} == {"2026-01-01T00:00:00Z"}
