"""After the database is restored from a backup, jobs continue by themselves with an empty Redis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import chain
from flask import Flask

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.jobs.models import jobs_with_ids
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import tasks
from tests.support.factories import state_of
from tests.support.servers import RedisServer, Worker, wait_for
from tests.support.smtp import SmtpServer

Backup = dict[str, list[dict[str, Any]]]


def back_up() -> Backup:
    db.session.rollback()
    tables = db.metadata.sorted_tables
    return {table.name: [dict(row) for row in db.session.execute(sa.select(table)).mappings()] for table in tables}


def restore(backup: Backup) -> None:
    db.session.rollback()
    for table in reversed(db.metadata.sorted_tables):
        db.session.execute(sa.delete(table))
    for table in db.metadata.sorted_tables:
        if backup[table.name]:
            db.session.execute(sa.insert(table), backup[table.name])
    db.session.commit()


def unfinished() -> list[str]:
    db.session.rollback()
    return list(db.session.scalars(sa.select(Task.id).where(Task.unfinished)))


@pytest.mark.both_databases
@pytest.mark.exhaustive
def test_unfinished_jobs_finish_after_database_restore(
    app: Flask,
    make_worker: Callable[..., Worker],
    make_user: Callable[..., User],
    redis_server: RedisServer,
    smtp_server: SmtpServer,
    tmp_path: Path,
) -> None:
    worker, release_file = make_worker(concurrency=1, TASK_LEASE="5"), tmp_path / "release"
    running = launch(chain(tasks.count.s(str(release_file)), tasks.noop.s())).id
    export = make_user("susan").launch_task("export_posts", "Export").id
    db.session.commit()
    wait_for(lambda: state_of(running) == "PROGRESS")
    backup = back_up()
    release_file.touch()
    wait_for(lambda: not unfinished(), what="all jobs end after the backup")
    worker.kill()

    redis_server.client.flushall()
    restore(backup)
    assert len(unfinished()) == 4
    make_worker()
    wait_for(lambda: reconcile_all() is not None and not unfinished(), what="the restored jobs end")

    assert [jobs_with_ids([job_id])[0].state for job_id in (running, export)] == ["SUCCESS", "SUCCESS"]
    assert len({message["Message-ID"] for message in smtp_server.messages}) == 1
