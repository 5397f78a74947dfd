"""``flask tasks pause``, ``purge``, ``run``: what they do without a worker, and through faults."""

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
from microblog.taskqueue.queues import EPOCH_KEY, RESUMED_KEY, pause_consuming, resume_consuming
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.console import commands
from tests.support.servers import RedisServer, Worker, wait_for

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])  # the databases differ in nothing that is asked there
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(app: Flask) -> Run:
    """Runs ``flask tasks``; returns its exit code and what it printed on stdout and on stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        result = commands(app, "tasks")(*arguments)
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def lasting_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that knows after a restart what it knew before."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


class TestPause:
    @pytest.mark.exhaustive
    def test_it_outlasts_a_redis_that_is_restarted_with_its_data(
        self, lasting_redis: RedisServer, make_app: Callable[..., Flask], make_worker: Callable[..., Worker]
    ) -> None:
        noop = make_app(REDIS_URL=lasting_redis.url).extensions["celery"].tasks["noop"]
        worker = make_worker(REDIS_URL=lasting_redis.url)
        pause_consuming("default")
        wait_for(lambda: "Canceling queue default" in worker.text())

        with lasting_redis.away():
            wait_for(lambda: "Connection to broker lost" in worker.text())
        wait_for(lambda: worker.text().count("Connected to") >= 2)
        waiting, running = launch(noop.s()), launch(noop.s().set(queue="mail"))
        db.session.commit()
        wait_for(lambda: state_of(running) == states.SUCCESS, what="the worker works again")
        assert (state_of(waiting), lasting_redis.client.llen("default")) == (states.PENDING, 1)

        resume_consuming("default")

        wait_for(lambda: state_of(waiting) == states.SUCCESS, what="and returns by itself")

    @pytest.mark.both_databases
    def test_reconcile_does_not_pile_up_messages_of_a_paused_queue(self, app: Flask, redis_server: RedisServer) -> None:
        pause_consuming("default")
        for _ in range(3):
            launch_task("noop", "")
        db.session.commit()
        let_an_hour_go_by(redis_server)

        assert (reconcile_all(), redis_server.client.llen("default")) == (0, 3)
        resume_consuming("default")
        assert (reconcile_all(), redis_server.client.llen("default")) == (0, 3)
        redis_server.client.delete(RESUMED_KEY.format("default"))  # as a minute later
        assert (reconcile_all(), redis_server.client.llen("default")) == (3, 6)

    @pytest.mark.both_databases
    def test_what_a_paused_queue_lost_is_published_again(self, app: Flask, redis_server: RedisServer) -> None:
        pause_consuming("default")
        launch_task("noop", "")
        db.session.commit()
        let_an_hour_go_by(redis_server)
        redis_server.client.delete("default")

        assert (reconcile_all(), redis_server.client.llen("default")) == (1, 1)
        assert (reconcile_all(), redis_server.client.llen("default")) == (0, 1)

    @ON_SQLITE
    def test_that_beat_waits_too_is_said(self, run: Run) -> None:
        code, said, warned = run("pause", "default", "--timeout", "0.2")

        assert (code, said) == (0, "default is paused.\n")
        assert warned == "What beat sends waits in default too: nothing is reconciled until it is resumed.\n"

    @ON_SQLITE
    def test_an_unknown_queue_is_refused(self, run: Run) -> None:
        for command in ("pause", "resume", "purge"):
            code, said, refused = run(command, "exprots")

            assert (code, said) == (2, "")
            assert "there is no queue called 'exprots'; there are: exports, mail, default." in refused


def state_of(task: Task) -> str:
    """The state of a task by now."""
    db.session.refresh(task)
    return task.state


def let_an_hour_go_by(redis_server: RedisServer) -> None:
    """As if all that was launched had been an hour ago."""
    hour = timedelta(hours=1)
    for task in db.session.scalars(sa.select(Task)):
        assert task.published_at is not None
        task.created_at, task.published_at = task.created_at - hour, task.published_at - hour
        redis_server.client.set(EPOCH_KEY, (task.created_at - hour).isoformat())
    db.session.commit()


class TestPurge:
    @pytest.mark.both_databases
    def test_it_throws_messages_away_after_a_preview_and_reconcile_brings_the_jobs_back(
        self, app: Flask, redis_server: RedisServer, run: Run
    ) -> None:
        launch_task("noop", "")
        db.session.commit()
        app.extensions["celery"].tasks["reconcile"].apply_async()

        preview = run("purge", "default")
        left = redis_server.client.llen("default")
        done = run("purge", "default", "--yes")

        assert (preview[0], left) == (1, 2)
        assert preview[1].startswith("default: 2 messages would be thrown away.\n1 tasks of this queue are unfinished")
        assert preview[2] == "Nothing was done; add --yes to do it.\n"
        assert (done[0], redis_server.client.llen("default")) == (0, 0)
        assert "default: 2 messages thrown away.\n" in done[1]
        assert "flask tasks cancel" in done[1]
        let_an_hour_go_by(redis_server)
        assert (reconcile_all(), redis_server.client.llen("default")) == (1, 1)

    @ON_SQLITE
    def test_its_json_tells_the_same(self, run: Run) -> None:
        code, said, _ = run("purge", "mail", "--yes", "--json")

        assert (code, json.loads(said)) == (
            0,
            {"queue": "mail", "messages": 0, "unfinished_tasks": 0, "done": True},
        )


class TestRun:
    @ON_SQLITE
    def test_without_a_name_it_lists_what_may_be_run(self, app: Flask, run: Run) -> None:
        listed = {task["name"]: task["arguments"] for task in json.loads(run("run", "--json")[1])}

        assert {"reconcile", "sweep_archives", "echo"} <= listed.keys()
        assert listed["reconcile"] == "()"
        assert "export_posts" not in listed
        assert "Reconcile every unfinished job" in run("run")[1]

    @ON_SQLITE
    def test_what_cannot_be_run_is_refused_with_a_sentence(self, app: Flask, run: Run) -> None:
        for wrong, sentence in {
            ("no_such_task",): "no_such_task is not a task to be run by hand; these are: ",
            ("export_posts", "--arg", "1"): "export_posts is not a task to be run by hand; these are: ",
            ("reconcile", "--arg", "1"): "reconcile takes (): ",
            ("echo", "--kwarg", "colour=red"): "echo takes (*args, name=''): ",
            ("echo", "--kwarg", "red"): "'red' is not of the form NAME=VALUE.",
        }.items():
            code, said, refused = run("run", *wrong)

            assert (code, said) == (2, ""), wrong
            assert sentence in refused
        assert db.session.scalar(sa.select(sa.func.count()).select_from(Task)) == 0

    @ON_SQLITE
    @pytest.mark.exhaustive
    def test_while_redis_is_away_it_waits(self, make_app: Callable[..., Flask]) -> None:
        app = make_app(REDIS_URL="redis://127.0.0.1:1/0")

        result = app.test_cli_runner().invoke(args=["tasks", "run", "reconcile"])

        assert result.exit_code == 0
        assert "It starts once Redis is back" in result.stdout

    @ON_SQLITE
    def test_every_task_that_beat_runs_can_be_run_by_hand(self, app: Flask) -> None:
        scheduled = {entry["task"] for entry in app.extensions["celery"].conf.beat_schedule.values()}

        assert scheduled
        assert scheduled <= runnable_tasks().keys()


@ON_SQLITE
def test_without_a_worker_nothing_is_done(run: Run) -> None:
    for command in (["rate-limit", "noop", "1/s"], ["time-limit", "noop", "1", "2"]):
        assert run(*command, "--timeout", "0.2") == (3, "", "No worker answers; nothing was done.\n")
