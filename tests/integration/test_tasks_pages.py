"""/tasks: a user sees, cancels and retries their own jobs, and nobody else's."""

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
from tests.support.factories import start_for, state_of
from tests.support.servers import RedisServer


def end(task_id: str, state: str, error: str = "The printer was on fire.") -> None:
    """As the mirror would write it."""
    values = {"state": state, "error": error, "finished_at": utcnow()}
    db.session.execute(sa.update(Task).where(Task.root_id == task_id).values(values))
    db.session.commit()


def test_a_user_without_jobs_is_told_how_to_start_one(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    assert "You have not started any task yet" in signed_in(susan).get("/tasks").text


@pytest.mark.both_databases
def test_all_jobs_are_listed_newest_first_page_by_page(
    app: Flask, susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    app.config["POSTS_PER_PAGE"] = 2
    started = []
    for _ in range(3):
        started.append(start_for(susan))
        end(started[-1], "SUCCESS")
    foreign = start_for(make_user("ben"))
    client = signed_in(susan)

    first = client.get("/tasks").text
    assert first.index(started[2]) < first.index(started[1])
    assert started[0] not in first
    assert foreign not in first
    older = first.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&")
    second = client.get(older).text
    assert started[0] in second
    assert started[1] not in second


def test_a_key_that_is_no_key_is_refused(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    assert signed_in(susan).get("/tasks?before=nonsense").status_code == 400


@pytest.mark.parametrize("action", ["card", "cancel", "retry"])
def test_somebody_elses_task_looks_like_none(
    susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient], action: str
) -> None:
    task_id = start_for(make_user("ben"))
    client = signed_in(susan)
    ask = client.get if action == "card" else client.post

    foreign, unknown = ask(f"/tasks/{task_id}/{action}"), ask(f"/tasks/nonsense/{action}")

    assert foreign.status_code == unknown.status_code == 404
    assert without_csrf_tokens(foreign.text) == without_csrf_tokens(unknown.text)
    assert state_of(task_id) == "PENDING"


@pytest.mark.both_databases
def test_a_waiting_job_is_cancelled(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = start_for(susan)

    response = signed_in(susan).post(f"/tasks/{task_id}/cancel", follow_redirects=True)

    assert state_of(task_id) == "REVOKED"
    assert "Cancelled" in response.text
    assert "Try again" in response.text


@pytest.mark.both_databases
def test_what_has_ended_cannot_be_cancelled(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = start_for(susan)
    end(task_id, "SUCCESS", error="")

    response = signed_in(susan).post(f"/tasks/{task_id}/cancel", follow_redirects=True)

    assert "It has already ended." in response.text
    assert state_of(task_id) == "SUCCESS"


@pytest.mark.both_databases
@pytest.mark.parametrize("state", ["FAILURE", "REVOKED"])
def test_trying_again_makes_a_new_job(
    susan: User, signed_in: Callable[..., FlaskClient], redis_server: RedisServer, state: str
) -> None:
    task_id = start_for(susan)
    end(task_id, state)

    signed_in(susan).post(f"/tasks/{task_id}/retry")

    again = db.session.scalar(sa.select(Task).where(Task.retried_from == task_id))
    assert again is not None
    assert (again.state, again.description, again.user_id) == ("PENDING", "noop of susan", susan.id)
    assert state_of(task_id) == state
    assert redis_server.client.llen("default") == 2


@pytest.mark.both_databases
def test_only_what_failed_or_was_cancelled_is_tried_again(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = start_for(susan)

    response = signed_in(susan).post(f"/tasks/{task_id}/retry", follow_redirects=True)

    assert "Only what failed or was cancelled" in response.text
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Task)) == 1


@pytest.mark.both_databases
def test_trying_again_while_one_runs_starts_nothing(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = start_for(susan)
    end(task_id, "FAILURE")
    start_for(susan)

    response = signed_in(susan).post(f"/tasks/{task_id}/retry", follow_redirects=True)

    assert "A job of this kind is already running." in response.text


def test_a_failure_shows_its_reason_and_no_traceback(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = start_for(susan)
    db.session.execute(sa.update(Task).values(traceback="Traceback: secret detail"))
    end(task_id, "FAILURE")

    page = signed_in(susan).get("/tasks").text

    assert "The printer was on fire." in page
    assert "secret detail" not in page


def test_running_jobs_are_on_every_page(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = start_for(susan)
    client = signed_in(susan)

    for path in ("/", "/explore", "/user/susan", "/tasks"):
        assert client.get(path).text.count(f'data-job="{task_id}"') == 1


def test_no_page_shows_the_jobs_of_others(
    susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    foreign = start_for(make_user("ben"))
    client = signed_in(susan)

    for path in ("/", "/explore", "/user/susan", "/tasks"):
        assert foreign not in client.get(path).text


def test_a_forged_form_changes_nothing(app: Flask, susan: User, client: FlaskClient) -> None:
    task_id = start_for(susan)
    app.config["WTF_CSRF_ENABLED"] = True
    with client.session_transaction() as session:
        session["_user_id"] = susan.get_id()

    for path in (f"/tasks/{task_id}/cancel", f"/tasks/{task_id}/retry", "/export_posts"):
        assert client.post(path, data={"csrf_token": "wrong"}).status_code == 400
    assert state_of(task_id) == "PENDING"


def test_redis_away_the_page_answers_and_the_cancellation_is_kept(
    app: Flask, susan: User, signed_in: Callable[..., FlaskClient], redis_server: RedisServer
) -> None:
    app.testing = False  # an error is a page, as in production
    task_id = start_for(susan)
    client = signed_in(susan)

    with redis_server.away():
        response = client.post(f"/tasks/{task_id}/cancel", follow_redirects=True)

    assert response.status_code == 200
    assert "Cancelling…" in response.text


def test_redis_away_an_export_is_accepted(
    app: Flask, susan: User, signed_in: Callable[..., FlaskClient], redis_server: RedisServer
) -> None:
    app.testing = False
    client = signed_in(susan)

    with redis_server.away():
        response = client.post("/export_posts", follow_redirects=True)

    assert response.status_code == 200
    assert "Waiting" in response.text
