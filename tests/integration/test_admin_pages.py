"""/admin: operators see and control the jobs of all users; other users get a 404."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring.web import admin
from microblog.taskqueue.models import Task
from tests.support import not_none
from tests.support.clients import without_csrf_tokens
from tests.support.factories import make_timed_job, start_job_for, state_of
from tests.support.programs import ROOT
from tests.support.servers import RedisServer, Worker, wait_for

UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"
WORKER_TIMEOUT = 60.0  # seconds for an expected reply of a worker; the machine may be busy


def shown(html: str) -> list[str]:
    """Return the ids of the listed jobs, in the order of the page."""
    return re.findall(r'<tr data-job="([^"]+)"', html)


def listed(client: FlaskClient, **criteria: Any) -> list[str]:
    response = client.get("/admin/tasks", query_string=criteria)
    assert response.status_code == 200, response.text
    return shown(response.text)


def admin_requests(app: Flask) -> list[tuple[str, str]]:
    """Return the method and path of every route of the operator pages."""
    return [
        (method, re.sub(r"<any\((\w+).*?>", r"\1", rule.rule).replace("<task_id>", UNKNOWN_ID))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/admin")
        for method in sorted(not_none(rule.methods) & {"GET", "POST"})
    ]


class TestAccess:
    def test_every_route_is_404_for_other_users(
        self, app: Flask, susan: User, signed_in: Callable[..., FlaskClient]
    ) -> None:
        client = signed_in(susan)
        requests = admin_requests(app)
        not_found = without_csrf_tokens(client.get("/nothing").text)

        assert len(requests) >= 8
        for method, path in requests:
            answer = client.open(path, method=method)
            assert (answer.status_code, without_csrf_tokens(answer.text)) == (404, not_found), path

    def test_every_route_requires_login(self, app: Flask, client: FlaskClient) -> None:
        for method, path in admin_requests(app):
            answer = client.open(path, method=method)
            assert answer.status_code == 302, path
            assert answer.headers["Location"].startswith("/auth/login"), path

    def test_link_is_shown_only_to_operators(
        self, susan: User, signed_in: Callable[..., FlaskClient], operator: FlaskClient
    ) -> None:
        assert 'href="/admin/tasks"' in operator.get("/").text
        assert 'href="/admin/tasks"' not in signed_in(susan).get("/").text

    def test_revoked_role_ends_with_next_request(self, operator: FlaskClient) -> None:
        assert operator.get("/admin/tasks").status_code == 200

        db.session.execute(sa.update(User).values(is_operator=False))
        db.session.commit()

        assert operator.get("/admin/tasks").status_code == 404

    def test_forged_csrf_token_is_refused(
        self, make_app: Callable[..., Flask], operator: FlaskClient, susan: User
    ) -> None:
        task_id = start_job_for(susan)
        strict = make_app(WTF_CSRF_ENABLED=True).test_client()
        with strict.session_transaction() as session:
            session["_user_id"] = not_none(User.with_username("olga")).get_id()

        for path in (f"{task_id}/cancel", f"{task_id}/retry", "selected/cancel", "all/cancel"):
            answer = strict.post(f"/admin/tasks/{path}", data={"csrf_token": "wrong", "job": task_id})
            assert answer.status_code == 400, path
        assert state_of(task_id) == "PENDING"


@pytest.mark.both_databases
class TestJobsPage:
    def test_lists_jobs_with_and_without_user(
        self, operator: FlaskClient, susan: User, make_user: Callable[..., User]
    ) -> None:
        old = make_timed_job(("export_posts", "SUCCESS"), at=utcnow() - timedelta(hours=2), user_id=susan.id)
        without_user = make_timed_job(("reconcile", "SUCCESS"), at=utcnow() - timedelta(hours=1))
        young = start_job_for(make_user("ben"))

        assert listed(operator) == [young, without_user, old]

    @pytest.mark.exhaustive
    def test_filters_and_sort_order(self, operator: FlaskClient, susan: User, make_user: Callable[..., User]) -> None:
        ben, now = make_user("ben"), utcnow()
        columns: dict[str, Any] = {"user_id": ben.id, "worker": "worker7@host", "error": "The printer was on fire."}
        done = make_timed_job(("export_posts", "SUCCESS"), at=now - timedelta(hours=3), user_id=susan.id)
        failed = make_timed_job(("export_posts", "FAILURE"), at=now - timedelta(hours=2), **columns)
        waiting = start_job_for(susan)
        db.session.execute(sa.update(Task).where(Task.id == failed).values(queue="mail"))
        db.session.commit()

        for criteria, found in [
            ({"state": "unfinished"}, [waiting]),
            ({"state": "pending"}, [waiting]),
            ({"state": "running"}, []),
            ({"state": "failure"}, [failed]),
            ({"state": "success"}, [done]),
            ({"user": "BEN"}, [failed]),
            ({"name": "export_posts"}, [failed, done]),
            ({"queue": "mail"}, [failed]),
            ({"worker": "worker7@host"}, [failed]),
            ({"error": "FIRE"}, [failed]),
            ({"error": "flood"}, []),
            ({"age": "within:1h"}, [waiting]),
            ({"age": "before:1h"}, [failed, done]),
            ({"order": "oldest"}, [done, failed, waiting]),
            ({"order": "ended"}, [failed, done]),
            ({"state": "failure", "user": "susan"}, []),
            ({"state": "", "user": "", "name": "", "age": ""}, [waiting, failed, done]),
        ]:
            assert listed(operator, **criteria) == found, criteria

    def test_invalid_filter_is_422_with_field_error(self, operator: FlaskClient) -> None:
        for criteria, sentence in [
            ({"user": "nobody"}, "There is nobody of this name."),
            ({"state": "sleeping"}, "Not a valid choice"),
            ({"error": "half a character \x00"}, "characters that cannot be kept"),
            ({"name": "x" * 300}, "longer than 255"),
        ]:
            response = operator.get("/admin/tasks", query_string=criteria)
            assert response.status_code == 422, criteria
            assert sentence in response.text
            assert 'aria-invalid="true"' in response.text

    def test_invalid_cursor_or_period_is_400(self, operator: FlaskClient) -> None:
        for query in ("after=nonsense", "before=nonsense", "after=x&before=x", "period=year"):
            assert operator.get(f"/admin/tasks?{query}").status_code == 400, query

    @pytest.mark.both_databases(each_run=False)
    def test_paging_preserves_filter(self, operator: FlaskClient, susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(admin, "PAGE_SIZE", 2)
        ids = [
            make_timed_job(("noop", "SUCCESS"), at=utcnow() - timedelta(minutes=n), user_id=susan.id) for n in range(5)
        ]
        make_timed_job(("noop", "SUCCESS"))

        def follow(rel: str, html: str) -> str:
            address = re.findall(rf'rel="{rel}" href="([^"]+)"', html)[0].replace("&amp;", "&")
            return operator.get(address).text

        first = operator.get("/admin/tasks?user=susan").text
        second = follow("next", first)
        third = follow("next", second)

        assert [shown(html) for html in (first, second, third)] == [ids[:2], ids[2:4], ids[4:]]
        assert 'rel="next"' not in third
        assert shown(follow("prev", second)) == ids[:2]

    def test_user_texts_are_escaped(self, operator: FlaskClient, susan: User) -> None:
        make_timed_job(("noop", "FAILURE"), description="<script>alert(1)</script>", error="<b>", user_id=susan.id)

        html = operator.get("/admin/tasks").text

        assert "<script>alert" not in html
        assert "<b>" not in html


class TestChartsAndStatus:
    @pytest.mark.both_databases
    def test_charts_and_tables_count_finished_jobs(self, operator: FlaskClient, susan: User) -> None:
        at = (utcnow() - timedelta(hours=1)).replace(minute=30)  # all within one hour
        for _n in range(3):
            make_timed_job(("export_posts", "SUCCESS"), at=at, wait=90.0)
        make_timed_job(("export_posts", "FAILURE"), at=at, error="The printer was on fire.")

        html = operator.get("/admin/tasks").text

        assert html.count('src="data:image/svg+xml;charset=utf-8;base64,') == 3
        [row] = re.findall(r"<tr><th scope=\"row\">\d\d:00</th>((?:<td>.*?</td>){3})</tr>", html)
        assert re.findall(r"<td>(.*?)</td>", row) == ["3", "1", "0"]
        assert "The printer was on fire." in html

    def test_no_charts_without_finished_jobs(self, operator: FlaskClient) -> None:
        html = operator.get("/admin/tasks").text

        assert "data:image" not in html
        assert html.count("Nothing in this time.") == 3

    @pytest.mark.both_databases
    def test_every_period_has_charts(self, operator: FlaskClient) -> None:
        make_timed_job(("noop", "SUCCESS"), at=utcnow() - timedelta(minutes=1))

        for period in ("day", "week", "month"):
            assert "data:image" in operator.get(f"/admin/tasks?period={period}").text

    def test_status_lists_workers_and_queues(
        self, operator: FlaskClient, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(admin, "TIMEOUT", WORKER_TIMEOUT)
        wait_for(lambda: worker.name in operator.get("/admin/status").text, what="the worker is listed")

        html = operator.get("/admin/status").text

        assert "0 of 2" in html
        for queue in ("exports", "mail", "default"):
            assert f"queue={queue}" in html

    @pytest.mark.exhaustive
    def test_status_names_frozen_worker_within_timeout(
        self, operator: FlaskClient, make_worker: Callable[..., Worker]
    ) -> None:
        def load_in_time() -> str:
            """Return the page, or an empty string if it took too long, as it may on a busy machine."""
            began = time.monotonic()
            html = operator.get("/admin/status").text
            return html if time.monotonic() - began < admin.TIMEOUT + 1 else ""

        worker = make_worker()
        wait_for(lambda: "0 of 2" in operator.get("/admin/status").text, what="the worker is listed")
        worker.send_signal(signal.SIGSTOP)
        try:
            html = wait_for(load_in_time, what="the page loads in time")
        finally:
            worker.send_signal(signal.SIGCONT)

        assert "Silent" in html
        assert worker.name in html

    def test_pages_report_unavailable_redis(
        self, operator: FlaskClient, susan: User, redis_server: RedisServer
    ) -> None:
        task_id = start_job_for(susan)

        with redis_server.stopped():
            workers, tasks = operator.get("/admin/status"), operator.get("/admin/tasks")
            job = operator.get(f"/admin/tasks/{task_id}")

        assert workers.status_code == tasks.status_code == job.status_code == 200
        assert "Redis is unavailable" in workers.text
        assert shown(tasks.text) == [task_id]


class TestJob:
    def test_page_shows_all_details_of_job(self, operator: FlaskClient, susan: User) -> None:
        root_id = make_timed_job(
            ("export_posts", "SUCCESS"),
            ("email_export", "FAILURE"),
            user_id=susan.id,
            worker="worker7@host",
            error="The printer was on fire.",
            traceback="Traceback (most recent call last): <secret detail>",
            published_at=utcnow(),
        )
        db.session.execute(sa.update(Task).values(signature={"args": [42], "kwargs": {"colour": "red"}}))
        db.session.commit()

        html = operator.get(f"/admin/tasks/{root_id}").text

        for text in ("susan", root_id, "worker7@host", "The printer was on fire.", "[42]", "&#34;colour&#34;"):
            assert text in html
        assert "Traceback (most recent call last): &lt;secret detail&gt;" in html
        events = re.findall(r'class="event-name">(.*?)</span>\s*<span.*?>(\d)\. ', html)
        assert events[:2] == [("Created", "1"), ("Created", "2")]
        assert ("Succeeded", "1") in events
        assert events[-1] in [("Failed", "2"), ("Given to the broker", "2")]

    def test_step_id_shows_its_job(self, operator: FlaskClient) -> None:
        root_id = make_timed_job(("export_posts", "SUCCESS"), ("email_export", "SUCCESS"))
        step_id = db.session.scalars(sa.select(Task.id).where(Task.root_id == root_id, Task.position == 1)).one()

        assert root_id in operator.get(f"/admin/tasks/{step_id}").text

    @pytest.mark.both_databases
    def test_unknown_task_is_404(self, operator: FlaskClient) -> None:
        for task_id in (UNKNOWN_ID, "nonsense", "%00"):
            assert operator.get(f"/admin/tasks/{task_id}").status_code == 404
            assert operator.post(f"/admin/tasks/{task_id}/cancel").status_code == 404


def test_styled_events_of_timeline_exist() -> None:
    template = (ROOT / "microblog/templates/admin/job.html").read_text(encoding="utf-8")
    style = (ROOT / "microblog/static/admin.css").read_text(encoding="utf-8")
    labels = template.partition("event_labels")[2].partition("}")[0]
    events = {name.replace(" ", "-") for name in re.findall(r'"([a-z ]+)": _\(', labels)}
    parts = {"list", "time", "offset", "name", "step"}  # of the markup, for every event

    styled = set(re.findall(r"\.event-([a-z-]+)", style)) - parts

    assert styled
    assert styled <= events
