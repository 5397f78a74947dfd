"""``/metrics``: access by token, the values from the database and Redis, and partial outages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.database import DatabaseUnavailable
from microblog.extensions import db
from microblog.monitoring import metrics, statistics, status
from microblog.notifications import pubsub
from microblog.taskqueue import states
from microblog.taskqueue.errors import AlreadyFinished
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from microblog.taskqueue.queues import pause_consuming
from microblog.taskqueue.reconcile import reconcile_all
from tests.support import tasks
from tests.support.factories import add_task, make_timed_job, row_of, state_of
from tests.support.prometheus import TOKEN, scrape
from tests.support.servers import TIMEOUT, RedisServer, Worker, wait_for
from tests.support.smtp import SmtpServer

SLACK = 60.0  # seconds that a busy machine may add


@pytest.fixture(autouse=True)
def long_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow each check the time of a test, since the machine may be busy."""
    monkeypatch.setattr(metrics, "DEADLINE", TIMEOUT)
    monkeypatch.setattr(status, "EXTRA_TIMEOUT", TIMEOUT / 2)


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the timeout for workers: none is running."""
    monkeypatch.setattr(metrics, "PING_TIMEOUT", 0.05)


@pytest.fixture
def app(app: Flask) -> Flask:
    app.config["METRICS_TOKEN"] = TOKEN
    return app


def make_unfinished(state: str = "PENDING", *, age: float = 0.0, name: str = "noop", **columns: object) -> Task:
    """Create a task that was created `age` seconds ago, PENDING unless `state` or `columns` say otherwise."""
    task_id = f"{name}-{state}-{age}"
    add_task(task_id, state, age, name, **columns)
    return row_of(task_id)


@pytest.mark.usefixtures("no_workers")
@pytest.mark.parametrize("database", ["sqlite"])
class TestMetricsAccess:
    def test_not_found_without_configured_token(self, make_app: Callable[..., Flask]) -> None:
        client = make_app(METRICS_TOKEN=None).test_client()

        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}"}):
            assert client.get("/metrics", headers=headers).status_code == 404

    def test_wrong_token_is_unauthorized(self, app: Flask) -> None:
        for header in (None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer é", TOKEN):
            response = app.test_client().get("/metrics", headers={"Authorization": header} if header else {})

            assert response.status_code == 401, header
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert "microblog_" not in response.text

    def test_response_is_not_cacheable(self, app: Flask) -> None:
        response = app.test_client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})

        assert response.status_code == 200
        assert response.content_type.startswith("text/plain; version=")
        assert response.headers["Cache-Control"] == "no-store"
        assert "Set-Cookie" not in response.headers
        assert TOKEN not in response.text

    def test_openmetrics_format_on_request(self, app: Flask) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/openmetrics-text; version=1.0.0"}

        response = app.test_client().get("/metrics", headers=headers)

        assert response.content_type.startswith("application/openmetrics-text")
        families = read_openmetrics(response.text)  # type: ignore[no-untyped-call]  # the library has no annotation
        assert len(list(families)) > 20


@pytest.mark.usefixtures("no_workers")
@pytest.mark.both_databases
class TestTaskMetrics:
    def test_tasks_and_jobs_are_counted_by_state(self, app: Flask) -> None:
        make_timed_job(("export_posts", "SUCCESS"), ("email_export", "FAILURE"), wait=0.25, run=3.0)
        make_timed_job(("export_posts", "SUCCESS"), ("email_export", "STARTED"), lease_expires_at=utcnow())

        scraped = scrape(app)

        assert scraped.value("microblog_tasks_finished_total", name="export_posts", state="SUCCESS") == 2
        assert scraped.value("microblog_tasks_finished_total", name="email_export", state="FAILURE") == 1
        assert scraped.value("microblog_tasks_finished_total", name="email_export", state="SUCCESS") == 0
        assert scraped.values("microblog_tasks_unfinished", ["name", "state"]) == {("email_export", "STARTED"): 1}
        assert scraped.values("microblog_jobs_finished_total", ["name", "state"]) == {("export_posts", "FAILURE"): 1}
        assert scraped.value("microblog_jobs_unfinished", name="export_posts") == 1
        assert scraped.value("microblog_task_attempts_total", name="email_export") == 2

    def test_wait_and_run_times_are_histograms(self, app: Flask) -> None:
        for run in (0.5, 1.0, 1.5, 8.0):
            make_timed_job(("add", "SUCCESS"), wait=2.0, run=run)

        scraped = scrape(app)

        buckets = scraped.values("microblog_task_run_seconds_bucket", ["name", "le"])
        assert [buckets["add", le] for le in ("0.25", "0.5", "1.0", "2.0", "4.0", "8.0", "+Inf")] == [
            0,
            1,
            2,
            3,
            3,
            4,
            4,
        ]
        assert scraped.value("microblog_task_run_seconds_sum", name="add") == pytest.approx(11.0)
        assert scraped.values("microblog_task_wait_seconds_bucket", ["name", "le"])["add", "2.0"] == 4

    def test_crashes_are_distinguished_from_retries(self, app: Flask) -> None:
        make_timed_job(("kill_itself", "FAILURE"), attempts=3, crashes=3)
        make_timed_job(("kill_itself", "SUCCESS"), attempts=4, crashes=1)
        make_unfinished("STARTED", name="kill_itself", attempts=2, crashes=1, started_at=utcnow())

        scraped = scrape(app)

        assert scraped.value("microblog_task_attempts_total", name="kill_itself") == 9
        assert scraped.value("microblog_task_crashes_total", name="kill_itself") == 5
        assert scraped.value("microblog_task_given_up_total", name="kill_itself") == 1
        assert scraped.value("microblog_task_retries_total", name="kill_itself") == 2

    def test_mails_are_counted_as_sent_retried_failed(
        self, app: Flask, make_user: Callable[..., User], worker: Worker, smtp_server: SmtpServer
    ) -> None:
        smtp_server.answer = "451 come back later"
        make_user().launch_task("export_posts", "Exporting")
        db.session.commit()
        wait_for(lambda: smtp_server.refused, what="the server refuses")
        smtp_server.behave()
        wait_for(reconcile_all, what="the retry is due")
        wait_for(lambda: scrape(app).value("microblog_mails_sent_total"), what="the mail is sent")
        make_timed_job(("export_posts", "FAILURE"))
        make_timed_job(("email_export", "FAILURE"))
        make_timed_job(("email_export", "FAILURE"), wait=None)  # never started, since the previous step failed

        scraped = scrape(app)

        assert scraped.value("microblog_mails_sent_total") == len(smtp_server.messages) == 1
        assert scraped.value("microblog_mails_retried_total") == smtp_server.refused == 1
        assert not scraped.value("microblog_messages_republished_total")  # a retry is no fault
        assert scraped.value("microblog_mails_failed_total") == 1

    @pytest.mark.parametrize(
        ("state", "columns"),
        [
            ("PENDING", {}),
            ("RETRY", {"eta": -100}),
            ("STARTED", {"lease_expires_at": -100}),
            ("PROGRESS", {"updated_at": -100}),
        ],
    )
    def test_waiting_seconds_of_overdue_task(self, app: Flask, state: str, columns: dict[str, float]) -> None:
        times: dict[str, Any] = {name: utcnow() + timedelta(seconds=seconds) for name, seconds in columns.items()}
        make_unfinished(state, age=300 if columns else 100, **times)

        assert 100 <= (scrape(app).value("microblog_task_waiting_seconds", queue="default") or 0) < 250

    def test_waiting_seconds_ignore_tasks_not_due(self, app: Flask) -> None:
        later = utcnow() + timedelta(hours=1)
        make_unfinished("RETRY", age=500, eta=later)
        make_unfinished("PROGRESS", age=500, lease_expires_at=later)
        make_timed_job(("export_posts", "STARTED"), ("noop", "PENDING"), run=500, lease_expires_at=later)

        scraped = scrape(app)

        assert scraped.value("microblog_task_waiting_seconds", queue="default") == 0
        assert 500 <= (scraped.value("microblog_job_age_seconds", name="noop") or 0) < 650


@pytest.mark.parametrize("database", ["sqlite"])
class TestRedis:
    @pytest.mark.usefixtures("no_workers")
    def test_queue_length_age_and_pause(self, app: Flask) -> None:
        for _ in range(3):
            launch(tasks.noop.s())
        db.session.commit()
        pause_consuming("mail")

        scraped = scrape(app)

        assert scraped.values("microblog_queue_length", ["queue"]) == {("exports",): 0, ("mail",): 0, ("default",): 3}
        assert 0 < (scraped.value("microblog_queue_age_seconds", queue="default") or 0) < TIMEOUT
        assert scraped.values("microblog_queue_paused", ["queue"])[("mail",)] == 1

    @pytest.mark.exhaustive
    def test_refused_claims_and_republished_messages(
        self, app: Flask, redis_server: RedisServer, make_worker: Callable[..., Worker]
    ) -> None:
        make_worker()
        with redis_server.stopped():
            root = launch(tasks.noop.s())
            db.session.commit()
            task_id, signature = root.id, root.signature
        db.session.execute(sa.update(Task).values(created_at=utcnow() - timedelta(minutes=1)))
        db.session.commit()
        assert reconcile_all() == 1
        wait_for(lambda: state_of(task_id) in states.FINISHED, what="the task ends")
        tasks.noop.apply_async(task_id=task_id)

        wait_for(
            lambda: scrape(app).value("microblog_claims_refused_total", reason=AlreadyFinished.__name__),
            what="the duplicate is dropped",
        )
        scraped = scrape(app)
        assert scraped.value("microblog_messages_relayed_total") == 1
        assert scraped.value("microblog_claims_refused_total", reason="HeldElsewhere") == 0
        assert signature["task"] == "noop"

    @pytest.mark.exhaustive
    def test_workers_up_and_silent(self, app: Flask, make_worker: Callable[..., Worker]) -> None:
        worker, _other = make_worker(concurrency=1), make_worker(concurrency=1)
        wait_for(lambda: scrape(app).value("microblog_workers_up") == 2, what="both workers answer")

        def up_and_silent() -> tuple[float | None, float | None]:
            scraped = scrape(app)
            return scraped.value("microblog_workers_up"), scraped.value("microblog_workers_silent")

        with worker.frozen():
            wait_for(lambda: up_and_silent() == (1, 1), what="one worker answers and one does not")

    @pytest.mark.exhaustive
    def test_open_streams_of_live_processes_are_counted(self, app: Flask, redis_server: RedisServer) -> None:
        redis_server.client.sadd(redis_server.key(pubsub.PROCESSES), "other:1", "killed:2")
        redis_server.client.set(redis_server.key(pubsub.STREAM_COUNT.format("other:1")), 5, ex=3600)
        subscriptions = [app.extensions["hub"].subscribe("user:1") for _ in range(2)]
        wait_for(lambda: scrape(app).value("microblog_open_streams") == 7, what="2 local and 5 other streams are open")
        processes = redis_server.key(pubsub.PROCESSES)
        wait_for(lambda: redis_server.client.scard(processes) == 2, what="the killed process is removed")

        for subscription in subscriptions:
            subscription.close()

        wait_for(lambda: scrape(app).value("microblog_open_streams") == 5, what="the local streams are closed")

    @pytest.mark.usefixtures("no_workers")
    def test_counters_restart_at_zero_after_flush(self, app: Flask, redis_server: RedisServer) -> None:
        with app.app_context():
            from microblog.taskqueue.interface import message_republished

            message_republished.send(app.extensions["celery"], task_id="x")
        assert scrape(app).value("microblog_messages_relayed_total") == 1

        redis_server.client.flushall()

        assert scrape(app).value("microblog_messages_relayed_total") == 0


@pytest.mark.usefixtures("no_workers")
@pytest.mark.parametrize("database", ["sqlite"])
class TestOutages:
    def test_database_metrics_while_redis_is_down(
        self, app: Flask, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_timed_job(("add", "SUCCESS"))

        monkeypatch.setattr(metrics, "DEADLINE", 30.0)  # enough for the database on a busy machine
        with redis_server.stopped():
            began = time.monotonic()
            scraped = scrape(app)
            took = time.monotonic() - began

        assert (scraped.value("microblog_database_up"), scraped.value("microblog_redis_up")) == (1, 0)
        assert scraped.value("microblog_tasks_finished_total", name="add", state="SUCCESS") == 1
        assert not scraped.names & {"microblog_queue_length", "microblog_workers_up", "microblog_open_streams"}
        assert took < metrics.DEADLINE + SLACK

    def test_redis_metrics_while_database_is_down(self, make_app: Callable[..., Flask], tmp_path: Path) -> None:
        app = make_app(METRICS_TOKEN=TOKEN, SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/no/such/folder/x.db")

        scraped = scrape(app)

        assert (scraped.value("microblog_database_up"), scraped.value("microblog_redis_up")) == (0, 1)
        assert scraped.value("microblog_queue_length", queue="default") == 0
        assert scraped.value("microblog_workers_up") == 0
        assert "microblog_tasks_finished_total" not in scraped.names, "a zero would be wrong"

    def test_hanging_check_does_not_affect_others(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        release = threading.Event()

        def hang() -> statistics.TaskTableSnapshot:
            release.wait()
            raise DatabaseUnavailable("", {}, Exception())

        monkeypatch.setitem(metrics.PROBES, "database", hang)
        monkeypatch.setattr(metrics, "DEADLINE", 0.5)

        def up() -> tuple[float | None, float | None]:
            scraped = scrape(app)
            return scraped.value("microblog_database_up"), scraped.value("microblog_redis_up")

        try:
            wait_for(lambda: up() == (0, 1), what="Redis answers in time")
        finally:
            release.set()
