"""A client of the JSON API, and a check of its error responses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from microblog.accounts.models import User
from microblog.api.models import ApiToken
from microblog.api.schemas import ProblemSchema
from microblog.extensions import db

# The fields of a job that the API documents.
JOB_FIELDS = {
    *("id", "name", "description", "state", "progress", "result", "error", "attempts"),
    *("created_at", "started_at", "finished_at", "steps"),
}


class Caller:
    """A client that calls the API with the token of one user."""

    def __init__(self, client: FlaskClient, token: str) -> None:
        self.token = token
        self._client = client

    def __getattr__(self, method: str) -> Callable[..., TestResponse]:
        def request(path: str, **options: Any) -> TestResponse:
            db.session.rollback()
            headers = {"Authorization": f"Bearer {self.token}"} | options.pop("headers", {})
            response: TestResponse = getattr(self._client, method)(path, headers=headers, **options)
            db.session.rollback()
            return response

        return request


def caller_for(app: Flask, user: User) -> Caller:
    token, _row = ApiToken.issue(user, timedelta(hours=1))
    db.session.commit()
    return Caller(app.test_client(use_cookies=False), token)


def assert_problem(response: TestResponse, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    problem: dict[str, Any] = response.get_json(force=True)
    assert ProblemSchema().validate(problem) == {}
    assert problem["status"] == status
    assert problem["detail"].endswith((".", ")")), "the detail is a sentence"
    assert "Traceback" not in response.text
    return problem
