"""/admin: operators cancel and retry one job, the selected jobs, or all jobs that match a filter."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring import actions
from microblog.taskqueue.models import Task
from tests.support import not_none
from tests.support.factories import start_job_for, state_of

UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"


def end(task_id: str, state: str) -> None:
    """Finish a job, as its worker would store it."""
    db.session.execute(sa.update(Task).where(Task.root_id == task_id).values(state=state, finished_at=utcnow()))
    db.session.commit()


def count_tasks() -> int:
    db.session.rollback()
    return db.session.scalars(sa.select(sa.func.count()).select_from(Task)).one()


def until_of(confirmation: str) -> str:
    return not_none(re.search(r'name="until" value="([^"]+)"', confirmation))[1]


def test_operator_cancels_job_of_any_user(operator: FlaskClient, susan: User) -> None:
    task_id = start_job_for(susan)

    response = operator.post(f"/admin/tasks/{task_id}/cancel", follow_redirects=True)

    assert state_of(task_id) == "REVOKED"
    assert "noop of susan: cancelled." in response.text


def test_retry_redirects_to_new_job_of_user(operator: FlaskClient, susan: User) -> None:
    task_id = start_job_for(susan)
    end(task_id, "FAILURE")

    response = operator.post(f"/admin/tasks/{task_id}/retry")

    again = db.session.scalars(sa.select(Task).where(Task.retried_from == task_id)).one()
    assert again.user_id == susan.id
    assert response.headers["Location"] == f"/admin/tasks/{again.id}"


def test_refused_action_shows_reason(operator: FlaskClient, susan: User) -> None:
    task_id = start_job_for(susan)
    end(task_id, "SUCCESS")

    cancelled = operator.post(f"/admin/tasks/{task_id}/cancel", follow_redirects=True)
    retried = operator.post(f"/admin/tasks/{task_id}/retry", follow_redirects=True)

    assert "It has already ended." in cancelled.text
    assert "Only what failed or was cancelled" in retried.text


def test_only_selected_jobs_are_cancelled(operator: FlaskClient, make_user: Callable[..., User]) -> None:
    ids = [start_job_for(make_user(name)) for name in ("ann", "ben", "cid")]
    ended = start_job_for(make_user("dan"))
    end(ended, "SUCCESS")

    response = operator.post(
        "/admin/tasks/selected/cancel", data={"job": [*ids[:2], ended, UNKNOWN_ID]}, follow_redirects=True
    )

    assert [state_of(task_id) for task_id in (*ids, ended)] == ["REVOKED", "REVOKED", "PENDING", "SUCCESS"]
    assert f"2 jobs were cancelled. 1 was not: {ended}: It has already ended." in response.text


def test_empty_selection_changes_nothing(operator: FlaskClient, susan: User) -> None:
    task_id = start_job_for(susan)

    response = operator.post("/admin/tasks/selected/cancel", follow_redirects=True)

    assert "No job was chosen." in response.text
    assert state_of(task_id) == "PENDING"


def test_matching_jobs_are_retried_after_confirmation(operator: FlaskClient, make_user: Callable[..., User]) -> None:
    ids = [start_job_for(make_user(name)) for name in ("ann", "ben", "cid")]
    for task_id in ids[:2]:
        end(task_id, "FAILURE")
    address = "/admin/tasks/all/retry?state=failure"

    confirmation = operator.get(address).text

    assert "2 jobs match that failed or were cancelled" in confirmation
    assert count_tasks() == 3
    response = operator.post(address, data={"until": until_of(confirmation)}, follow_redirects=True)
    assert "2 jobs are tried again." in response.text
    retried = db.session.scalars(sa.select(Task.retried_from).where(Task.retried_from.is_not(None))).all()
    assert sorted(map(not_none, retried)) == sorted(ids[:2])


def test_jobs_created_after_confirmation_are_skipped(operator: FlaskClient, make_user: Callable[..., User]) -> None:
    earlier = start_job_for(make_user("ann"))
    confirmation = operator.get("/admin/tasks/all/cancel").text
    later = start_job_for(make_user("ben"))

    operator.post("/admin/tasks/all/cancel", data={"until": until_of(confirmation)})

    assert [state_of(earlier), state_of(later)] == ["REVOKED", "PENDING"]


def test_no_button_if_no_job_matches(operator: FlaskClient, susan: User) -> None:
    end(start_job_for(susan), "SUCCESS")

    for query in ("", "?state=success", "?state=failure"):
        html = operator.get(f"/admin/tasks/all/cancel{query}").text
        assert "No job matches" in html
        assert "Cancel them" not in html


def test_number_of_cancelled_jobs_is_limited(
    operator: FlaskClient, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "MAX_BULK_JOBS", 2)
    ids = [start_job_for(make_user(name)) for name in ("ann", "ben", "cid")]

    confirmation = operator.get("/admin/tasks/all/cancel").text
    assert "3 jobs match that have yet to end." in confirmation
    assert "takes the 2 newest of them" in confirmation
    operator.post("/admin/tasks/all/cancel", data={"until": until_of(confirmation)})

    assert [state_of(task_id) for task_id in ids] == ["PENDING", "REVOKED", "REVOKED"]


def test_invalid_until_is_refused(operator: FlaskClient, susan: User) -> None:
    task_id = start_job_for(susan)

    for until in (None, "", "soon", "2026-01-01", "9999-01-01T00:00:00+00:00"):
        response = operator.post("/admin/tasks/all/cancel", data={} if until is None else {"until": until})
        assert response.status_code == 400, until
    assert state_of(task_id) == "PENDING"


def test_invalid_filter_is_refused(operator: FlaskClient, susan: User) -> None:
    task_id = start_job_for(susan)

    response = operator.post("/admin/tasks/all/cancel?user=nobody", data={"until": utcnow().isoformat()})

    assert response.status_code == 400
    assert state_of(task_id) == "PENDING"
