"""``flask tasks cancel`` and ``retry`` with filters, ``cancel --terminate``, and ``reconcile``."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.jobs.models import find_job
from microblog.taskqueue import states
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.cluster import Cluster, running_cluster
from tests.support.console import Run, commands
from tests.support.factories import add_task, make_older, state_of
from tests.support.servers import RedisServer, Worker, wait_for
from tests.support.tasks import noop

TIMEOUT_OPTION = ("--timeout", "60")  # for a busy machine, where the default of one second is too short


@pytest.fixture
def run(app: Flask) -> Run:
    return commands(app, "tasks")


@pytest.fixture(scope="module")
def cluster(
    base_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    with running_cluster(base_environment, tmp_path_factory.mktemp("cluster"), request) as cluster:
        cluster.start_worker()
        yield cluster


class TestFilters:
    @pytest.fixture
    def waiting(self, app: Flask) -> list[str]:
        """The ids of pending jobs, newest first; there is also a finished job."""
        ids = [launch(noop.s()).id for _number in range(12)]
        add_task("done", states.SUCCESS)
        db.session.commit()
        return ids[::-1]

    def test_cancel_lists_jobs_and_asks_for_confirmation(self, run: Run, waiting: list[str]) -> None:
        result = run("cancel", "--name", "noop", typed="n\n")

        assert result.exit_code == 1
        assert waiting[0] in result.stdout
        assert waiting[-1] not in result.stdout
        assert "… and 2 more\n12 jobs would be cancelled." in result.stdout
        assert "Continue?" in result.stderr
        assert {state_of(job_id) for job_id in waiting} == {states.PENDING}

    def test_confirmed_cancel_affects_only_matching_jobs(self, run: Run, waiting: list[str]) -> None:
        result = run("cancel", "--name", "noop", typed="y\n")

        assert result.exit_code == 0
        assert result.stdout.count(": cancelled.") == 12
        assert {state_of(job_id) for job_id in waiting} == {states.REVOKED}
        assert state_of("done") == states.SUCCESS

    def test_cancel_aborts_without_confirmation(self, run: Run, waiting: list[str]) -> None:
        result = run("cancel", "--name", "noop")

        assert result.exit_code == 1
        assert "Aborted" in result.stderr
        assert {state_of(job_id) for job_id in waiting} == {states.PENDING}

    def test_yes_and_json_print_only_json(self, run: Run, waiting: list[str]) -> None:
        result = run("cancel", "--state", "PENDING", "--queue", "default", "--yes", "--json")

        answers = json.loads(result.stdout)
        assert (result.exit_code, result.stderr) == (0, "")
        assert [(each["asked"], each["done"], each["state"]) for each in answers] == [
            (job_id, True, states.REVOKED) for job_id in waiting
        ]

    def test_dry_run_changes_nothing(self, run: Run, waiting: list[str]) -> None:
        text, as_json = (
            run("cancel", "--name", "noop", "--dry-run"),
            run("cancel", "--name", "noop", "--dry-run", "--json"),
        )

        assert (text.exit_code, as_json.exit_code) == (0, 0)
        assert "12 jobs would be cancelled." in text.stdout
        assert json.loads(as_json.stdout) == {"count": 12, "ids": waiting}
        assert {state_of(job_id) for job_id in waiting} == {states.PENDING}

    def test_no_matching_job_is_reported(self, run: Run, waiting: list[str]) -> None:
        for arguments in (["--state", "SUCCESS"], ["--queue", "mail"], ["--older-than", "1d"]):
            result = run("cancel", *arguments, "--yes")

            assert (result.exit_code, result.stdout, result.stderr) == (1, "", "There are no such jobs.\n")

    def test_either_ids_or_filters_are_required(self, run: Run, waiting: list[str]) -> None:
        for command in ("cancel", "retry"):
            assert run(command, waiting[0], "--name", "noop", "--yes").exit_code == 2
            assert run(command, "--yes").exit_code == 2
        assert {state_of(job_id) for job_id in waiting} == {states.PENDING}

    def test_failed_job_is_retried_only_once(self, run: Run) -> None:
        add_task("failed", states.FAILURE, seconds_ago=180, error="The disk is full.")
        add_task("other", states.FAILURE, seconds_ago=120, error="The moon is full.")
        add_task("cancelled", states.REVOKED, seconds_ago=60)

        first = run("retry", "--error", "disk", "--yes", "--json")
        second = run("retry", "--error", "disk", "--yes")
        rest = run("retry", "--older-than", "30s", "--yes", "--json")

        [again] = json.loads(first.stdout)
        assert (again["asked"], again["retried_from"], again["done"]) == ("failed", "failed", True)
        assert (second.exit_code, second.stderr) == (1, "There are no such jobs.\n")
        assert [each["asked"] for each in json.loads(rest.stdout)] == ["cancelled", "other"]
        assert db.session.scalar(sa.select(sa.func.count()).where(Task.retried_from == "failed")) == 1


class TestTerminate:
    @pytest.fixture
    def worker(self, cluster: Cluster) -> Iterator[Worker]:
        yield cluster.workers[0]
        cluster.workers[0].send_signal(signal.SIGCONT)

    @pytest.fixture
    def job(self, cluster: Cluster, worker: Worker, runs_file: Path, release_file: Path) -> str:
        """The id of a running job that ignores cancel requests."""
        job: str = cluster.launch("ignore_cancellation", str(runs_file), str(release_file))
        wait_for(runs_file.exists, what="the job runs")
        return job

    def test_cancel_request_does_not_stop_job(self, cluster: Cluster, job: str) -> None:
        result = cluster.run("cancel", job)

        assert "cancellation requested" in result.stdout
        assert cluster.state(job) == states.STARTED

    def test_terminated_job_is_revoked_and_not_rerun(
        self, cluster: Cluster, worker: Worker, job: str, runs_file: Path
    ) -> None:
        result = cluster.run("cancel", "--terminate", *TIMEOUT_OPTION, job)

        assert (result.exit_code, result.stdout) == (0, f"{job}: terminated.\n")
        assert cluster.state(job) == states.REVOKED
        wait_for(lambda: not cluster.redis_server.unacknowledged(), what="its message is acknowledged")
        later = cluster.launch("noop")
        wait_for(lambda: cluster.state(later) == states.SUCCESS, what="the worker continues")
        assert reconcile_all() == 0
        assert cluster.redis_server.waiting("default") == 0
        assert runs_file.read_text() == "ran\n"
        assert cluster.state(job) == states.REVOKED

    def test_job_of_frozen_worker_is_revoked(self, cluster: Cluster, worker: Worker, job: str, runs_file: Path) -> None:
        worker.send_signal(signal.SIGSTOP)

        result = cluster.run("cancel", "--terminate", "--timeout", "0.3", job)
        assert result.exit_code == 0
        assert f"{worker.name} did not reply" in result.stdout
        make_older(job, lease_expires_at=1)
        assert reconcile_all()
        worker.send_signal(signal.SIGCONT)

        assert cluster.state(job) == states.REVOKED
        later = cluster.launch("noop")
        wait_for(lambda: cluster.state(later) == states.SUCCESS, what="the worker continues")
        assert cluster.state(job) == states.REVOKED
        assert runs_file.read_text() == "ran\n"

    def test_pending_job_is_cancelled(self, cluster: Cluster, worker: Worker) -> None:
        cluster.run("pause", "mail", *TIMEOUT_OPTION)
        job = cluster.launch("noop", queue="mail")

        result = cluster.run("cancel", "--terminate", *TIMEOUT_OPTION, job)

        cluster.run("resume", "mail", *TIMEOUT_OPTION)
        assert (result.exit_code, result.stdout) == (0, f"{job}: cancelled.\n")


@pytest.mark.parametrize("database", ["sqlite"])
def test_terminate_without_redis_stores_cancel_request(run: Run, redis_server: RedisServer) -> None:
    add_task("runs", states.STARTED, lease_expires_at=utcnow() + timedelta(hours=1), worker="one@host", attempts=1)

    with redis_server.stopped():
        result = run("cancel", "--terminate", "runs")

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("Redis is unavailable")
    job = find_job("runs")
    assert job is not None
    assert job.cancel_requested


def add_jobs_to_repair(redis_server: RedisServer) -> None:
    """Add five jobs that need a repair, and one that a worker holds."""
    now, long_ago = utcnow(), utcnow() - timedelta(hours=1)
    lost_claim: dict[str, Any] = {
        "lease_expires_at": now - timedelta(minutes=1),
        "attempts": 1,
        "worker": "gone@host",
    }
    add_task("never-published", states.PENDING, 540)
    add_task("worker-gone", states.PROGRESS, 480, published_at=long_ago, **lost_claim)
    add_task("cancelled", states.STARTED, 420, published_at=long_ago, cancel_requested_at=now, **lost_claim)
    add_task("crashing", states.STARTED, 360, published_at=long_ago, crashes=2, **lost_claim)
    add_task("heard-by-redis-alone", states.STARTED, 300, published_at=long_ago, **lost_claim)
    meta_key = redis_server.key("celery-task-meta-heard-by-redis-alone")
    redis_server.client.set(meta_key, json.dumps({"status": "SUCCESS", "result": {}}))
    add_task("held", states.STARTED, 240, published_at=long_ago, lease_expires_at=now + timedelta(hours=1))


class TestReconcile:
    def test_dry_run_explains_repairs_and_changes_nothing(
        self, run: Run, app: Flask, redis_server: RedisServer
    ) -> None:
        add_jobs_to_repair(redis_server)
        states_before = {job_id: state_of(job_id) for job_id in db.session.scalars(sa.select(Task.id))}

        text, as_json = run("reconcile", "--dry-run"), run("reconcile", "--dry-run", "--json")

        reasons = {each["id"]: each["why"] for each in json.loads(as_json.stdout)}
        assert (text.exit_code, as_json.exit_code) == (0, 0)
        assert list(reasons) == ["never-published", "worker-gone", "cancelled", "crashing", "heard-by-redis-alone"]
        assert "never published" in reasons["never-published"]
        assert "its worker is gone" in reasons["worker-gone"]
        assert "It was cancelled." in reasons["cancelled"]
        assert "It must end" in reasons["crashing"]
        assert "Its result is missing" in reasons["heard-by-redis-alone"]
        assert all(job_id in text.stdout and sentence in text.stdout for job_id, sentence in reasons.items())
        assert {job_id: state_of(job_id) for job_id in states_before} == states_before
        assert redis_server.waiting("default") == 0

        result = run("reconcile")
        assert (result.exit_code, result.stdout) == (0, "Repaired 5 jobs.\n")
        assert {job_id: state_of(job_id) for job_id in states_before} == states_before | {
            "cancelled": states.REVOKED,
            "crashing": states.FAILURE,
            "heard-by-redis-alone": states.SUCCESS,
        }
        assert redis_server.waiting("default") == 2

    def test_nothing_to_repair_is_reported(self, run: Run) -> None:
        for arguments in ([], ["--dry-run"]):
            result = run("reconcile", *arguments)

            assert (result.exit_code, result.stdout, result.stderr) == (1, "", "There is nothing to do.\n")
