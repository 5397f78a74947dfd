"""``flask tasks pause``, ``purge`` and ``run``: behaviour without a worker and after faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.extensions import db
from microblog.monitoring.actions import runnable_tasks
from microblog.taskqueue import states
from microblog.taskqueue.launch import launch, launch_task
from microblog.taskqueue.models import Task
from microblog.taskqueue.queues import pause_consuming, resume_consuming
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.console import commands
from tests.support.factories import state_of
from tests.support.servers import RedisServer, Worker, wait_for

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])  # the database makes no difference
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(app: Flask) -> Run:
    """Runs ``flask tasks``; returns the exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        result = commands(app, "tasks")(*arguments)
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def persistent_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server that keeps its data when it is restarted."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


class TestPausedQueue:
    @pytest.mark.exhaustive
    def test_pause_survives_redis_restart(
        self, persistent_redis: RedisServer, make_app: Callable[..., Flask], make_worker: Callable[..., Worker]
    ) -> None:
        noop = make_app(REDIS_URL=persistent_redis.url).extensions["celery"].tasks["noop"]
        worker = make_worker(REDIS_URL=persistent_redis.url)
        pause_consuming("default")
        wait_for(lambda: "Canceling queue default" in worker.text())

        with persistent_redis.stopped():
            wait_for(lambda: "Connection to broker lost" in worker.text())
        wait_for(lambda: worker.text().count("Connected to") >= 2)
        waiting, running = launch(noop.s()), launch(noop.s().set(queue="mail"))
        db.session.commit()
        wait_for(lambda: state_of(running.id) == states.SUCCESS, what="the worker runs tasks again")
        assert (state_of(waiting.id), persistent_redis.waiting("default")) == (states.PENDING, 1)

        resume_consuming("default")

        wait_for(lambda: state_of(waiting.id) == states.SUCCESS, what="the worker consumes the resumed queue")

    @pytest.mark.both_databases
    def test_reconcile_adds_no_messages_to_paused_queue(self, app: Flask, redis_server: RedisServer) -> None:
        pause_consuming("default")
        for _ in range(3):
            launch_task("noop", "")
        db.session.commit()
        age_by_an_hour(redis_server)

        assert (reconcile_all(), redis_server.waiting("default")) == (0, 3)
        resume_consuming("default")
        assert (reconcile_all(), redis_server.waiting("default")) == (0, 3)

    @pytest.mark.both_databases
    def test_lost_message_of_paused_queue_is_republished(self, app: Flask, redis_server: RedisServer) -> None:
        pause_consuming("default")
        launch_task("noop", "")
        db.session.commit()
        age_by_an_hour(redis_server)
        redis_server.client.delete(redis_server.key("default"))

        assert (reconcile_all(), redis_server.waiting("default")) == (1, 1)
        assert (reconcile_all(), redis_server.waiting("default")) == (0, 1)

    @ON_SQLITE
    def test_pause_warns_about_beat_tasks(self, run: Run) -> None:
        code, stdout, stderr = run("pause", "default", "--timeout", "0.2")

        assert (code, stdout) == (0, "default is paused.\n")
        assert stderr == "Periodic tasks wait in default too: nothing expires or is cleaned up meanwhile.\n"

    @ON_SQLITE
    def test_unknown_queue_is_refused(self, run: Run) -> None:
        for command in ("pause", "resume", "purge"):
            code, stdout, stderr = run(command, "exprots")

            assert (code, stdout) == (2, "")
            assert "there is no queue called 'exprots'; the queues are: exports, mail, default." in stderr


def age_by_an_hour(redis_server: RedisServer) -> None:
    """Change all times as if every task had been launched an hour earlier."""
    hour = timedelta(hours=1)
    for task in db.session.scalars(sa.select(Task)):
        assert task.published_at is not None
        task.created_at, task.published_at = task.created_at - hour, task.published_at - hour
    redis_server.make_messages_older("default", hour.total_seconds())
    db.session.commit()


class TestPurge:
    @pytest.mark.both_databases
    def test_purge_previews_and_reconcile_republishes(self, app: Flask, redis_server: RedisServer, run: Run) -> None:
        launch_task("noop", "")
        db.session.commit()
        app.extensions["celery"].tasks["sweep_archives"].apply_async()

        preview = run("purge", "default")
        queued = redis_server.waiting("default")
        done = run("purge", "default", "--yes")

        assert (preview[0], queued) == (1, 2)
        assert preview[1].startswith("default: 2 messages would be deleted.\n1 tasks of this queue are unfinished")
        assert preview[2] == "Nothing was done; add --yes to do it.\n"
        assert (done[0], redis_server.waiting("default")) == (0, 0)
        assert "default: 2 messages deleted.\n" in done[1]
        assert "flask tasks cancel" in done[1]
        age_by_an_hour(redis_server)
        assert (reconcile_all(), redis_server.waiting("default")) == (1, 1)

    @ON_SQLITE
    def test_purge_of_empty_queue_as_json(self, run: Run) -> None:
        code, stdout, _ = run("purge", "mail", "--yes", "--json")

        assert (code, json.loads(stdout)) == (
            0,
            {"queue": "mail", "messages": 0, "unfinished_tasks": 0, "done": True},
        )


class TestRunCommand:
    @ON_SQLITE
    def test_run_without_name_lists_tasks(self, app: Flask, run: Run) -> None:
        listed = {task["name"]: task["arguments"] for task in json.loads(run("run", "--json")[1])}

        assert {"sweep_archives", "echo"} <= listed.keys()
        assert listed["sweep_archives"] == "()"
        assert "export_posts" not in listed
        assert "Delete expired archives" in run("run")[1]

    @ON_SQLITE
    def test_run_refuses_unknown_task_or_arguments(self, app: Flask, run: Run) -> None:
        for arguments, reason in {
            ("no_such_task",): "no_such_task is not a task that operators can run; available tasks: ",
            ("export_posts", "--arg", "1"): "export_posts is not a task that operators can run; available tasks: ",
            ("sweep_archives", "--arg", "1"): "sweep_archives takes (): ",
            ("echo", "--kwarg", "colour=red"): "echo takes (*args, name=''): ",
            ("echo", "--kwarg", "red"): "'red' is not of the form NAME=VALUE.",
        }.items():
            code, stdout, stderr = run("run", *arguments)

            assert (code, stdout) == (2, ""), arguments
            assert reason in stderr
        assert db.session.scalar(sa.select(sa.func.count()).select_from(Task)) == 0

    @ON_SQLITE
    @pytest.mark.exhaustive
    def test_run_while_redis_is_down(self, make_app: Callable[..., Flask]) -> None:
        app = make_app(REDIS_URL="redis://127.0.0.1:1/0")

        result = app.test_cli_runner().invoke(args=["tasks", "run", "sweep_archives"])

        assert result.exit_code == 0
        assert "the task starts once Redis is available again" in result.stdout

    @ON_SQLITE
    def test_every_beat_task_is_runnable(self, app: Flask) -> None:
        scheduled = {entry["task"] for entry in app.extensions["celery"].conf.beat_schedule.values()}

        assert scheduled
        assert scheduled <= runnable_tasks().keys()


@ON_SQLITE
def test_limits_fail_without_worker(run: Run) -> None:
    for command in (["rate-limit", "noop", "1/s"], ["time-limit", "noop", "1", "2"]):
        assert run(*command, "--timeout", "0.2") == (3, "", "No worker replied; nothing was done.\n")
