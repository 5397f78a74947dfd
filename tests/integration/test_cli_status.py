"""``flask tasks status``: the health of the system on one screen and in the exit code."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from threading import Event
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from click.testing import Result

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring import status
from microblog.monitoring.rules import PATIENCE, Verdict
from microblog.taskqueue import states
from microblog.taskqueue.models import Task
from tests.support import programs
from tests.support.cluster import Cluster, running_cluster
from tests.support.console import flask_tasks
from tests.support.servers import TIMEOUT, Worker, wait_for

FINISHED, UNFINISHED = 1_000, 50  # jobs
SLACK = 10.0  # seconds in addition to the timeout for replies
TIMEOUT_OPTION = ("--timeout", "60")  # for expected replies on a busy machine


@pytest.fixture(scope="module")
def cluster(
    base_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """Three workers, a beat, 1,000 finished jobs and 50 unfinished jobs."""
    with running_cluster(base_environment, tmp_path_factory.mktemp("cluster"), request) as cluster:
        for _worker in range(3):
            cluster.start_worker(concurrency=1)
        command = ["celery", "-A", "tests.support.worker_app", "beat"]
        beat = programs.ScriptProcess(command, cluster.environment, stdout=cluster.folder / "beat.log")
        add_history()
        yield cluster
        beat.terminate()
        beat.wait(TIMEOUT)


@pytest.fixture
def frozen(cluster: Cluster) -> Iterator[Worker]:
    with cluster.workers[-1].frozen() as worker:
        yield worker


def run_within(act: Callable[[], Result], *, below: float, code: Verdict) -> Result:
    """Call `act` until it takes less than `below` seconds and exits with `code`; return that result.

    On a busy machine a call may take longer, or a worker may not reply in time.
    """

    def attempt() -> Result | None:
        began = time.monotonic()
        result = act()
        took = time.monotonic() - began
        return result if took < below and result.exit_code == code else None

    result = wait_for(attempt, what=f"a call takes less than {below} s and exits with {code.name}")
    assert result is not None
    return result


def add_history() -> None:
    """Add the jobs of a busy site; the running ones have a valid lease."""
    db.session.execute(
        sa.insert(User), [{"username": f"u{n}", "email": f"u{n}@x.org", "password_hash": ""} for n in range(UNFINISHED)]
    )
    users = db.session.scalars(sa.select(User.id)).all()
    now = utcnow()
    rows: list[dict[str, Any]] = []
    for number in range(FINISHED):
        at = now - timedelta(minutes=number)
        rows += job(
            f"done-{number}", users[number % UNFINISHED], states.SUCCESS, at, finished_at=at, worker="past@host"
        )
    for number, user_id in enumerate(users):
        held = now + timedelta(hours=1)
        rows += job(
            f"open-{number}",
            user_id,
            states.PROGRESS,
            now - timedelta(seconds=number),
            lease_expires_at=held,
            updated_at=now - timedelta(hours=1),
        )
    for row in rows:
        row.setdefault("lease_expires_at", None)
        row.setdefault("finished_at", None)
        row.setdefault("worker", None)
    db.session.execute(sa.insert(Task), rows)
    db.session.commit()


class JobCounts(NamedTuple):
    """The numbers of running jobs younger than a minute and of jobs that ended within the hour."""

    younger: int
    ended: int


def counts() -> JobCounts:
    now = utcnow()
    jobs = sa.select(sa.func.count()).select_from(Task).where(Task.position == 0)
    younger = jobs.where(Task.state == states.PROGRESS, Task.created_at > now - timedelta(minutes=1))
    ended = jobs.where(Task.finished_at >= now - timedelta(hours=1))
    return JobCounts(db.session.scalars(younger).one(), db.session.scalars(ended).one())


def job(root_id: str, user_id: int, state: str, created_at: Any, **columns: Any) -> list[dict[str, Any]]:
    """Return the rows of a job of two steps: both are in `state` if it is final, otherwise the second is pending."""
    second = state if state in states.FINISHED else states.PENDING
    return [
        {
            "id": root_id if position == 0 else f"{root_id}-mail",
            "root_id": root_id,
            "position": position,
            "user_id": user_id,
            "name": ("export_posts", "email_export")[position],
            "queue": ("exports", "mail")[position],
            "state": (state, second)[position],
            "signature": {},
            "published_at": created_at if position == 0 else None,
            "created_at": created_at,
            "updated_at": created_at,
        }
        | (columns if position == 0 or second == state else {})
        for position in (0, 1)
    ]


def test_status_is_healthy_with_workers_and_beat(cluster: Cluster) -> None:
    counts_before: list[JobCounts] = []

    def left_by_others() -> int:
        """Return the number of unfinished jobs of other tests, which would change the counts between two queries."""
        db.session.rollback()
        left = sa.select(sa.func.count()).select_from(Task).where(Task.unfinished, Task.user_id.is_(None))
        return db.session.scalars(left).one()

    def problems() -> str:
        found = "\n".join(cluster.json("status", *TIMEOUT_OPTION)["problems"])
        print(found)
        return found

    def check() -> Result:
        counts_before.append(counts())
        return cluster.run("status", "--json", *TIMEOUT_OPTION)

    wait_for(lambda: problems() == "", what="beat runs the schedule")
    wait_for(lambda: all(entry["last_sent_at"] for entry in cluster.json("schedule")), what="beat has stored it")
    wait_for(lambda: left_by_others() == 0, what="the jobs of other tests have ended")

    result = run_within(check, below=TIMEOUT, code=Verdict.HEALTHY)

    counts_after = counts()
    found = json.loads(result.stdout)
    assert (found["status"], found["problems"], found["away"]) == ("healthy", [], {})
    assert {worker["name"] for worker in found["workers"] if worker["up"]} == {each.name for each in cluster.workers}
    assert {queue["name"]: queue["consumers"] for queue in found["queues"]} == dict.fromkeys(
        ("exports", "mail", "default"), 3
    )
    assert sum(found["jobs"]["unfinished"]["PROGRESS"].values()) == UNFINISHED
    assert counts_after.younger <= found["jobs"]["unfinished"]["PROGRESS"]["1m"] <= counts_before[-1].younger
    assert counts_after.ended <= found["jobs"]["ended"] <= counts_before[-1].ended
    assert {entry["name"] for entry in found["schedule"]} >= {"sweep_archives", "sweep_uploads"}
    for entry in found["schedule"]:
        waited = datetime.fromisoformat(entry["next_run_at"]) - datetime.fromisoformat(entry["last_sent_at"])
        assert waited == timedelta(seconds=entry["every"])


def test_text_fits_on_one_screen(cluster: Cluster) -> None:
    text = cluster.run("status", *TIMEOUT_OPTION).stdout

    assert len(text.splitlines()) <= 45
    for heading in (
        "Workers",
        "Queues",
        "Unfinished jobs, by age",
        "Failed in the last hour",
        "Schedule",
        "no user is waiting",
    ):
        assert heading in text


@pytest.mark.exhaustive
def test_frozen_worker_is_named_within_timeout(cluster: Cluster, frozen: Worker) -> None:
    for timeout in (1.0, 2.0):
        check = partial(cluster.run, "status", "--json", "--timeout", str(timeout))
        result = run_within(check, below=timeout + SLACK, code=Verdict.DEGRADED)

        found = json.loads(result.stdout)
        assert found["status"] == "degraded"
        assert f"{frozen.name} does not respond." in found["problems"]
        assert frozen.name in [worker["name"] for worker in found["workers"] if not worker["up"]]


def test_waiting_user_and_failures_degrade_status(cluster: Cluster) -> None:
    now = utcnow()
    patient = User(username="patient", email="p@x.org", password_hash="")
    db.session.add(patient)
    db.session.flush()
    user_id = patient.id
    # In the future, so that reconcile, which runs here too, does not publish the job again.
    published_at = now + timedelta(hours=1)
    waiting = job("waiting", user_id, states.PENDING, now - timedelta(hours=6), published_at=published_at)
    earlier = now - 2 * PATIENCE
    failed = [
        row | {"error": "It broke."}
        for number in range(20)
        for row in job(f"failed-{number}", user_id, states.FAILURE, earlier, started_at=earlier, finished_at=earlier)
    ]
    db.session.execute(sa.insert(Task), waiting)
    db.session.execute(sa.insert(Task), failed)
    db.session.commit()
    try:
        found, text = cluster.json("status", *TIMEOUT_OPTION), cluster.run("status", *TIMEOUT_OPTION).stdout
    finally:
        db.session.execute(sa.delete(Task).where(Task.user_id == user_id))
        db.session.execute(sa.delete(User).where(User.id == user_id))
        db.session.commit()

    waits = found["jobs"]["oldest_waiting"]
    assert (waits["user"], waits["job_id"], waits["state"]) == ("patient", "waiting", states.PENDING)
    assert found["status"] == "degraded"
    assert any(problem.startswith("No task of the queue exports starts;") for problem in found["problems"])
    assert found["jobs"]["failed"] == 20
    assert any(problem.startswith("20 of the 20 tasks export_posts") for problem in found["problems"])
    assert "patient, for 6h" in text


def test_paused_queue_with_messages_degrades_status(cluster: Cluster) -> None:
    def paused_problems() -> list[str]:
        """Publish a message and return the problems of paused queues; a worker may still take the first message."""
        cluster.launch("noop", queue="mail")
        return [problem for problem in cluster.json("status", *TIMEOUT_OPTION)["problems"] if "paused" in problem]

    assert cluster.run("pause", "mail", *TIMEOUT_OPTION).exit_code == 0
    try:
        [problem] = wait_for(paused_problems)
    finally:
        cluster.run("resume", "mail", *TIMEOUT_OPTION)

    assert problem.startswith("The queue mail is paused; waiting messages: ")


def test_status_without_database_shows_workers_and_queues(cluster: Cluster) -> None:
    environment = cluster.environment | {"DATABASE_URL": f"sqlite:///{cluster.folder}/no/such/folder/x.db"}

    result = programs.run(flask_tasks("status", "--json", *TIMEOUT_OPTION), environment)

    found = json.loads(result.stdout)
    assert (result.returncode, found["status"], found["jobs"]) == (Verdict.DOWN, "down", None)
    assert found["away"]["jobs"].startswith("The database is unavailable")
    assert len(found["workers"]) == len(cluster.workers)
    assert len(found["queues"]) == 3
    assert found["schedule"]
    assert "Traceback" not in result.stderr


def test_status_without_redis_shows_jobs(cluster: Cluster) -> None:
    environment = cluster.environment | {"REDIS_URL": "redis://127.0.0.1:1/0"}

    result = programs.run(flask_tasks("status", *TIMEOUT_OPTION), environment)
    found = json.loads(programs.run(flask_tasks("status", "--json", *TIMEOUT_OPTION), environment).stdout)

    assert (result.returncode, found["status"]) == (Verdict.DOWN, "down")
    assert (found["workers"], found["queues"], found["schedule"]) == (None, None, None)
    assert sum(found["jobs"]["unfinished"]["PROGRESS"].values()) == UNFINISHED
    assert result.stdout.startswith("down\n- Redis is unavailable")
    assert result.stdout.count("Redis is unavailable") == 1


@pytest.mark.exhaustive
def test_hanging_query_is_reported_within_timeout(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    over = Event()
    monkeypatch.setattr(status, "_summarize_jobs", over.wait)
    try:
        check = partial(cluster.run, "status", "--json", "--timeout", "1")
        result = run_within(check, below=1 + SLACK, code=Verdict.DEGRADED)
    finally:
        over.set()

    assert json.loads(result.stdout)["away"]["jobs"] == "The database does not respond in time."


def test_help_explains_exit_codes(cluster: Cluster) -> None:
    text = cluster.run("status", "--help").stdout

    for word in ("Example", "0  healthy", "1  degraded", "2  down"):
        assert word in text
