"""``/tasks``: users see, cancel and retry their own jobs only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.taskqueue.models import Task
from tests.support.clients import without_csrf_tokens
from tests.support.factories import make_timed_job, start_job_for, state_of
from tests.support.servers import RedisServer


def end(task_id: str, state: str, error: str = "The printer was on fire.") -> None:
    """End a job's tasks as the result backend would."""
    values = {"state": state, "error": error, "finished_at": utcnow()}
    db.session.execute(sa.update(Task).where(Task.root_id == task_id).values(values))
    db.session.commit()


def test_empty_list_explains_how_to_start(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    assert "You have not started any task yet" in signed_in(susan).get("/tasks").text


@pytest.mark.both_databases
def test_jobs_are_paged_newest_first(
    app: Flask, susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    app.config["POSTS_PER_PAGE"] = 2
    started = []
    for _ in range(3):
        started.append(start_job_for(susan))
        end(started[-1], "SUCCESS")
    foreign = start_job_for(make_user("ben"))
    client = signed_in(susan)

    first = client.get("/tasks").text
    assert first.index(started[2]) < first.index(started[1])
    assert started[0] not in first
    assert foreign not in first
    older = first.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
    second = client.get(older).text
    assert started[0] in second
    assert started[1] not in second


def test_invalid_page_key_is_refused(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    assert signed_in(susan).get("/tasks?before=nonsense").status_code == 400


@pytest.mark.parametrize("action", ["card", "cancel", "retry"])
def test_task_of_another_user_is_not_found(
    susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient], action: str
) -> None:
    task_id = start_job_for(make_user("ben"))
    client = signed_in(susan)
    request = client.get if action == "card" else client.post

    foreign, unknown = request(f"/tasks/{task_id}/{action}"), request(f"/tasks/nonsense/{action}")

    assert foreign.status_code == unknown.status_code == 404
    assert without_csrf_tokens(foreign.text) == without_csrf_tokens(unknown.text)
    assert state_of(task_id) == "PENDING"


@pytest.mark.both_databases
def test_pending_job_is_cancelled(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = start_job_for(susan)

    response = signed_in(susan).post(f"/tasks/{task_id}/cancel", follow_redirects=True)

    assert state_of(task_id) == "REVOKED"
    assert "Cancelled" in response.text
    assert "Try again" in response.text


@pytest.mark.both_databases
def test_finished_job_cannot_be_cancelled(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = start_job_for(susan)
    end(task_id, "SUCCESS", error="")

    response = signed_in(susan).post(f"/tasks/{task_id}/cancel", follow_redirects=True)

    assert "It has already ended." in response.text
    assert state_of(task_id) == "SUCCESS"


@pytest.mark.both_databases
@pytest.mark.parametrize("state", ["FAILURE", "REVOKED"])
def test_retry_creates_new_job(
    susan: User, signed_in: Callable[..., FlaskClient], redis_server: RedisServer, state: str
) -> None:
    task_id = start_job_for(susan)
    end(task_id, state)

    signed_in(susan).post(f"/tasks/{task_id}/retry")

    retried = db.session.scalar(sa.select(Task).where(Task.retried_from == task_id))
    assert retried is not None
    assert (retried.state, retried.description, retried.user_id) == ("PENDING", "noop of susan", susan.id)
    assert state_of(task_id) == state
    assert redis_server.waiting("default") == 2


@pytest.mark.both_databases
def test_retry_requires_failed_or_cancelled_job(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = start_job_for(susan)

    response = signed_in(susan).post(f"/tasks/{task_id}/retry", follow_redirects=True)

    assert "Only what failed or was cancelled" in response.text
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Task)) == 1


@pytest.mark.both_databases
def test_retry_refused_while_same_job_running(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = start_job_for(susan)
    end(task_id, "FAILURE")
    start_job_for(susan)

    response = signed_in(susan).post(f"/tasks/{task_id}/retry", follow_redirects=True)

    assert "A job of this kind is already running." in response.text


def test_retry_of_anonymized_job_is_refused(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    for steps in ([("noop", "FAILURE")], [("add", "SUCCESS"), ("noop", "FAILURE")]):
        task_id = make_timed_job(*steps, user_id=susan.id, signature={})

        response = signed_in(susan).post(f"/tasks/{task_id}/retry", follow_redirects=True)

        assert "This kind of job no longer exists." in response.text


def test_failure_shows_error_without_traceback(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = start_job_for(susan)
    db.session.execute(sa.update(Task).values(traceback="Traceback: secret detail"))
    end(task_id, "FAILURE")

    page = signed_in(susan).get("/tasks").text

    assert "The printer was on fire." in page
    assert "secret detail" not in page


def test_running_jobs_are_on_every_page(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = start_job_for(susan)
    client = signed_in(susan)

    for path in ("/", "/explore", "/user/susan", "/tasks"):
        assert client.get(path).text.count(f'data-job="{task_id}"') == 1


def test_pages_hide_jobs_of_other_users(
    susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    foreign = start_job_for(make_user("ben"))
    client = signed_in(susan)

    for path in ("/", "/explore", "/user/susan", "/tasks"):
        assert foreign not in client.get(path).text


def test_forged_csrf_token_is_refused(app: Flask, susan: User, client: FlaskClient) -> None:
    task_id = start_job_for(susan)
    app.config["WTF_CSRF_ENABLED"] = True
    with client.session_transaction() as session:
        session["_user_id"] = susan.get_id()

    for path in (f"/tasks/{task_id}/cancel", f"/tasks/{task_id}/retry", "/export_posts"):
        assert client.post(path, data={"csrf_token": "wrong"}).status_code == 400
    assert state_of(task_id) == "PENDING"


def test_cancel_while_redis_is_down(
    app: Flask, susan: User, signed_in: Callable[..., FlaskClient], redis_server: RedisServer
) -> None:
    app.testing = False  # an error is a page, as in production
    task_id = start_job_for(susan)
    client = signed_in(susan)

    with redis_server.stopped():
        response = client.post(f"/tasks/{task_id}/cancel", follow_redirects=True)

    assert response.status_code == 200
    assert "Cancelling…" in response.text


def test_export_while_redis_is_down(
    app: Flask, susan: User, signed_in: Callable[..., FlaskClient], redis_server: RedisServer
) -> None:
    app.testing = False
    client = signed_in(susan)

    with redis_server.stopped():
        response = client.post("/export_posts", follow_redirects=True)

    assert response.status_code == 200
    assert "Waiting" in response.text
