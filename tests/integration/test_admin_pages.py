"""/admin: operators see and steer the jobs of all; to everybody else there is nothing there."""

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
from microblog.monitoring import admin, bulk, house
from microblog.taskqueue.models import Task
from tests.support.finished import make_finished
from tests.support.services import wait_for

UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def operator(make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]) -> FlaskClient:
    """The browser of an operator."""
    user = make_user("olga")
    user.is_operator = True
    db.session.commit()
    return signed_in(user)


def start(user: User, name: str = "noop") -> str:
    task = user.launch_task(name, f"{name} of {user.username}")
    db.session.commit()
    return task.id


def state_of(task_id: str) -> str:
    db.session.rollback()
    return db.session.scalars(sa.select(Task.state).where(Task.id == task_id)).one()


def shown(html: str) -> list[str]:
    """The ids of the jobs in a list, in its order."""
    return re.findall(r'<tr data-job="([^"]+)"', html)


def listed(client: FlaskClient, **criteria: Any) -> list[str]:
    response = client.get("/admin/tasks", query_string=criteria)
    assert response.status_code == 200, response.text
    return shown(response.text)


def admin_requests(app: Flask) -> list[tuple[str, str]]:
    """Every route of the operators' pages, as a method and a path."""
    return [
        (method, re.sub(r"<any\((\w+).*?>", r"\1", rule.rule).replace("<task_id>", UNKNOWN_ID))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/admin")
        for method in sorted(rule.methods & {"GET", "POST"})
    ]


class TestWhoMay:
    def test_to_everybody_else_there_is_nothing_on_any_of_its_routes(self, app, susan, signed_in):
        client = signed_in(susan)
        requests = admin_requests(app)
        nothing = client.get("/nothing")

        assert len(requests) >= 8
        for method, path in requests:
            answer = client.open(path, method=method)
            assert (answer.status_code, answer.text) == (404, nothing.text), path

    def test_who_is_not_signed_in_is_asked_to_on_any_of_its_routes(self, app, client):
        for method, path in admin_requests(app):
            answer = client.open(path, method=method)
            assert answer.status_code == 302, path
            assert answer.headers["Location"].startswith("/auth/login"), path

    def test_only_operators_have_the_link(self, susan, signed_in, operator):
        assert 'href="/admin/tasks"' in operator.get("/").text
        assert 'href="/admin/tasks"' not in signed_in(susan).get("/").text

    def test_the_role_ends_with_the_next_request(self, operator):
        assert operator.get("/admin/tasks").status_code == 200

        db.session.execute(sa.update(User).values(is_operator=False))
        db.session.commit()

        assert operator.get("/admin/tasks").status_code == 404

    def test_a_forged_form_changes_nothing(self, make_app, operator, susan):
        task_id = start(susan)
        strict = make_app(WTF_CSRF_ENABLED=True).test_client()
        with strict.session_transaction() as session:
            session["_user_id"] = User.with_username("olga").get_id()

        for path in (f"{task_id}/cancel", f"{task_id}/retry", "selected/cancel", "all/cancel"):
            answer = strict.post(f"/admin/tasks/{path}", data={"csrf_token": "wrong", "job": task_id})
            assert answer.status_code == 400, path
        assert state_of(task_id) == "PENDING"


class TestList:
    def test_it_has_the_jobs_of_all_users_and_of_none(self, operator, susan, make_user):
        old = make_finished(("export_posts", "SUCCESS"), at=utcnow() - timedelta(hours=2), user_id=susan.id)
        nobodys = make_finished(("reconcile", "SUCCESS"), at=utcnow() - timedelta(hours=1))
        young = start(make_user("ben"))

        assert listed(operator) == [young, nobodys, old]

    def test_it_can_be_narrowed_and_sorted(self, operator, susan, make_user):
        ben, now = make_user("ben"), utcnow()
        facts = {"user_id": ben.id, "worker": "worker7@host", "error": "The printer was on fire."}
        done = make_finished(("export_posts", "SUCCESS"), at=now - timedelta(hours=3), user_id=susan.id)
        failed = make_finished(("export_posts", "FAILURE"), at=now - timedelta(hours=2), **facts)
        waiting = start(susan)
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

    def test_a_criterion_that_is_none_is_refused_beside_its_field(self, operator):
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

    def test_an_address_that_names_nothing_is_refused(self, operator):
        for query in ("after=nonsense", "before=nonsense", "after=x&before=x", "period=year"):
            assert operator.get(f"/admin/tasks?{query}").status_code == 400, query

    def test_it_is_read_page_by_page_with_its_filter(self, operator, susan, monkeypatch):
        monkeypatch.setattr(admin, "PAGE_SIZE", 2)
        ids = [
            make_finished(("noop", "SUCCESS"), at=utcnow() - timedelta(minutes=n), user_id=susan.id) for n in range(5)
        ]
        make_finished(("noop", "SUCCESS"))

        def follow(rel: str, html: str) -> str:
            address = re.findall(rf'rel="{rel}" href="([^"]+)"', html)[0].replace("&amp;", "&")
            return operator.get(address).text

        first = operator.get("/admin/tasks?user=susan").text
        second = follow("next", first)
        third = follow("next", second)

        assert [shown(html) for html in (first, second, third)] == [ids[:2], ids[2:4], ids[4:]]
        assert 'rel="next"' not in third
        assert shown(follow("prev", second)) == ids[:2]

    def test_texts_of_users_are_no_markup(self, operator, susan):
        make_finished(("noop", "FAILURE"), description="<script>alert(1)</script>", error="<b>", user_id=susan.id)

        html = operator.get("/admin/tasks").text

        assert "<script>alert" not in html
        assert "<b>" not in html


class TestFigures:
    def test_charts_and_their_tables_have_what_ended(self, operator, susan):
        for _n in range(3):
            make_finished(("export_posts", "SUCCESS"), wait=90.0)
        make_finished(("export_posts", "FAILURE"), error="The printer was on fire.")

        html = operator.get("/admin/tasks").text

        assert html.count('src="data:image/svg+xml;charset=utf-8;base64,') == 3
        [row] = re.findall(r"<tr><th scope=\"row\">\d\d:00</th>((?:<td>.*?</td>){3})</tr>", html)
        assert re.findall(r"<td>(.*?)</td>", row) == ["3", "1", "0"]
        assert "The printer was on fire." in html

    def test_a_house_in_which_nothing_happened_has_no_empty_pictures(self, operator):
        html = operator.get("/admin/tasks").text

        assert "data:image" not in html
        assert html.count("Nothing in this time.") == 3

    def test_each_period_has_its_charts(self, operator):
        make_finished(("noop", "SUCCESS"), at=utcnow() - timedelta(minutes=1))

        for period in ("day", "week", "month"):
            assert "data:image" in operator.get(f"/admin/tasks?period={period}").text

    def test_workers_and_queues_are_told_as_they_are(self, operator, worker):
        wait_for(lambda: worker.name in operator.get("/admin/status").text, what="the worker has signed in")

        html = operator.get("/admin/status").text

        assert "0 of 2" in html
        for queue in ("exports", "mail", "default"):
            assert f"queue={queue}" in html

    def test_a_frozen_worker_is_named_and_waited_for_no_longer_than_promised(self, operator, worker):
        wait_for(lambda: "0 of 2" in operator.get("/admin/status").text, what="the worker has signed in")
        worker.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            html = operator.get("/admin/status").text
            took = time.monotonic() - began
        finally:
            worker.send_signal(signal.SIGCONT)

        assert "Silent" in html
        assert worker.name in html
        assert took < house.TIMEOUT + 1

    def test_redis_away_the_pages_answer_and_say_so(self, operator, susan, redis_server):
        task_id = start(susan)

        with redis_server.away():
            workers, tasks = operator.get("/admin/status"), operator.get("/admin/tasks")
            job = operator.get(f"/admin/tasks/{task_id}")

        assert workers.status_code == tasks.status_code == job.status_code == 200
        assert "Redis does not answer" in workers.text
        assert shown(tasks.text) == [task_id]


class TestJob:
    def test_its_page_has_all_that_is_known(self, operator, susan):
        root_id = make_finished(
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
        events = re.findall(r'class="line-what">(.*?)</span>\s*<span.*?>(\d)\. ', html)
        assert events[:2] == [("Created", "1"), ("Created", "2")]
        assert ("Succeeded", "1") in events
        assert events[-1] in [("Failed", "2"), ("Given to the broker", "2")]

    def test_a_step_leads_to_its_job_too(self, operator):
        root_id = make_finished(("export_posts", "SUCCESS"), ("email_export", "SUCCESS"))
        step_id = db.session.scalars(sa.select(Task.id).where(Task.root_id == root_id, Task.position == 1)).one()

        assert root_id in operator.get(f"/admin/tasks/{step_id}").text

    def test_there_is_no_such_task(self, operator):
        for task_id in (UNKNOWN_ID, "nonsense", "%00"):
            assert operator.get(f"/admin/tasks/{task_id}").status_code == 404
            assert operator.post(f"/admin/tasks/{task_id}/cancel").status_code == 404


def end(task_id: str, state: str) -> None:
    """As the mirror would write it."""
    db.session.execute(sa.update(Task).where(Task.root_id == task_id).values(state=state, finished_at=utcnow()))
    db.session.commit()


class TestSteering:
    def test_a_job_of_anybody_is_cancelled(self, operator, susan):
        task_id = start(susan)

        response = operator.post(f"/admin/tasks/{task_id}/cancel", follow_redirects=True)

        assert state_of(task_id) == "REVOKED"
        assert "noop of susan: cancelled." in response.text

    def test_trying_again_makes_a_new_job_of_the_same_user_and_leads_to_it(self, operator, susan):
        task_id = start(susan)
        end(task_id, "FAILURE")

        response = operator.post(f"/admin/tasks/{task_id}/retry")

        again = db.session.scalars(sa.select(Task).where(Task.retried_from == task_id)).one()
        assert again.user_id == susan.id
        assert response.headers["Location"] == f"/admin/tasks/{again.id}"

    def test_what_cannot_be_done_is_said(self, operator, susan):
        task_id = start(susan)
        end(task_id, "SUCCESS")

        cancelled = operator.post(f"/admin/tasks/{task_id}/cancel", follow_redirects=True)
        retried = operator.post(f"/admin/tasks/{task_id}/retry", follow_redirects=True)

        assert "It has already ended." in cancelled.text
        assert "Only what failed or was cancelled" in retried.text

    def test_those_that_were_ticked_are_cancelled_and_no_others(self, operator, make_user):
        ids = [start(make_user(name)) for name in ("ann", "ben", "cid")]
        ended = start(make_user("dan"))
        end(ended, "SUCCESS")

        response = operator.post(
            "/admin/tasks/selected/cancel", data={"job": [*ids[:2], ended, UNKNOWN_ID]}, follow_redirects=True
        )

        assert [state_of(task_id) for task_id in (*ids, ended)] == ["REVOKED", "REVOKED", "PENDING", "SUCCESS"]
        assert f"2 jobs were cancelled. 1 was not: {ended}: It has already ended." in response.text

    def test_without_a_tick_nothing_is_done(self, operator, susan):
        task_id = start(susan)

        response = operator.post("/admin/tasks/selected/cancel", follow_redirects=True)

        assert "No job was chosen." in response.text
        assert state_of(task_id) == "PENDING"

    def test_all_that_match_are_counted_first_and_done_by_a_button(self, operator, make_user):
        ids = [start(make_user(name)) for name in ("ann", "ben", "cid")]
        for task_id in ids[:2]:
            end(task_id, "FAILURE")
        address = "/admin/tasks/all/retry?state=failure"

        confirmation = operator.get(address).text

        assert "2 jobs match that failed or were cancelled" in confirmation
        assert count_tasks() == 3
        response = operator.post(address, data={"until": until_of(confirmation)}, follow_redirects=True)
        assert "2 jobs are tried again." in response.text
        retried = db.session.scalars(sa.select(Task.retried_from).where(Task.retried_from.is_not(None))).all()
        assert sorted(retried) == sorted(ids[:2])

    def test_what_came_after_the_question_is_left_alone(self, operator, make_user):
        before = start(make_user("ann"))
        confirmation = operator.get("/admin/tasks/all/cancel").text
        after = start(make_user("ben"))

        operator.post("/admin/tasks/all/cancel", data={"until": until_of(confirmation)})

        assert [state_of(before), state_of(after)] == ["REVOKED", "PENDING"]

    def test_nothing_that_matches_is_said_and_has_no_button(self, operator, susan):
        end(start(susan), "SUCCESS")

        for query in ("", "?state=success", "?state=failure"):
            html = operator.get(f"/admin/tasks/all/cancel{query}").text
            assert "No job matches" in html
            assert "Cancel them" not in html

    def test_no_more_are_done_at_once_than_is_said(self, operator, make_user, monkeypatch):
        monkeypatch.setattr(bulk, "MOST_AT_ONCE", 2)
        ids = [start(make_user(name)) for name in ("ann", "ben", "cid")]

        confirmation = operator.get("/admin/tasks/all/cancel").text
        assert "3 jobs match that have yet to end." in confirmation
        assert "takes the 2 newest of them" in confirmation
        operator.post("/admin/tasks/all/cancel", data={"until": until_of(confirmation)})

        assert [state_of(task_id) for task_id in ids] == ["PENDING", "REVOKED", "REVOKED"]

    def test_a_form_that_is_none_of_ours_changes_nothing(self, operator, susan):
        task_id = start(susan)

        for until in (None, "", "soon", "2026-01-01", "9999-01-01T00:00:00+00:00"):
            response = operator.post("/admin/tasks/all/cancel", data={} if until is None else {"until": until})
            assert response.status_code == 400, until
        assert state_of(task_id) == "PENDING"

    def test_a_filter_that_is_none_steers_nothing(self, operator, susan):
        task_id = start(susan)

        response = operator.post("/admin/tasks/all/cancel?user=nobody", data={"until": utcnow().isoformat()})

        assert response.status_code == 400
        assert state_of(task_id) == "PENDING"


def count_tasks() -> int:
    db.session.rollback()
    return db.session.scalars(sa.select(sa.func.count()).select_from(Task)).one()


def until_of(confirmation: str) -> str:
    return re.findall(r'name="until" value="([^"]+)"', confirmation)[0]
