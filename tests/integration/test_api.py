"""The JSON API: exports, tasks and error responses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from microblog import pagination
from microblog.accounts.models import User
from microblog.api.schemas import TaskPageSchema, TaskSchema
from microblog.database import DatabaseUnavailable
from microblog.taskqueue import states
from tests.support import not_none
from tests.support.api import JOB_FIELDS, Caller, assert_problem, caller_for
from tests.support.factories import make_job
from tests.support.servers import RedisServer, Worker, wait_for

UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def david(app: Flask, make_user: Callable[..., User]) -> Caller:
    return caller_for(app, make_user("david"))


def ended_job(username: str, state: str = states.FAILURE, minutes_ago: int = 0, **columns: Any) -> str:
    """Insert the rows of an export that has ended, and return its id."""
    user = not_none(User.with_username(username))
    return make_job(user, state, state, seconds_ago=60 * minutes_ago, **columns)


class TestExports:
    def test_export_is_accepted_with_location(self, caller: Caller) -> None:
        started = caller.post("/api/exports")

        assert started.status_code == 202
        assert started.headers["Location"] == f"/api/tasks/{started.get_json()['id']}"
        assert TaskSchema().validate(started.get_json()) == {}
        assert set(started.get_json()) >= JOB_FIELDS
        assert [step["name"] for step in started.get_json()["steps"]] == ["export_posts", "email_export"]
        assert caller.get(started.headers["Location"]).get_json() == started.get_json()

    def test_empty_body_is_accepted(self, caller: Caller) -> None:
        bodies: list[dict[str, Any]] = [{"json": {}}, {"data": b"", "content_type": "application/json"}, {"data": b""}]
        for body in bodies:
            started = caller.post("/api/exports", **body)

            assert started.status_code == 202
            caller.post(f"{started.headers['Location']}/cancel")

    def test_second_export_is_409_with_running_task(self, caller: Caller) -> None:
        first = caller.post("/api/exports")

        second = caller.post("/api/exports")

        assert assert_problem(second, 409)["task"] == first.get_json()["id"]
        assert second.headers["Location"] == first.headers["Location"]
        assert len(caller.get("/api/tasks").get_json()["items"]) == 1

    def test_exports_of_other_users_do_not_conflict(self, caller: Caller, david: Caller) -> None:
        caller.post("/api/exports")

        assert david.post("/api/exports").status_code == 202

    def test_rate_limit_is_per_user(self, make_app: Callable[..., Flask], make_user: Callable[..., User]) -> None:
        app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_EXPORT="1 per hour")
        susan, david = (caller_for(app, make_user(name)) for name in ("susan", "david"))

        susan.post("/api/exports")

        assert_problem(susan.post("/api/exports"), 429)
        assert david.post("/api/exports").status_code == 202

    def test_export_is_rolled_back_if_response_fails(
        self, make_app: Callable[..., Flask], make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("the job cannot be read")

        susan = caller_for(make_app(TESTING=False), make_user("susan"))
        with monkeypatch.context() as patch:
            patch.setattr("microblog.api.serializers.find_job", fail)
            assert_problem(susan.post("/api/exports"), 500)

        assert susan.get("/api/tasks").get_json()["items"] == []

    def test_export_is_accepted_while_redis_is_unavailable(self, caller: Caller, redis_server: RedisServer) -> None:
        with redis_server.stopped():
            started = caller.post("/api/exports")

            assert started.status_code == 202
            assert caller.get(started.headers["Location"]).get_json()["state"] == states.PENDING

    @pytest.mark.parametrize("database", ["sqlite"])
    def test_export_can_be_polled_until_success(self, caller: Caller, worker: Worker) -> None:
        path = caller.post("/api/exports").headers["Location"]

        wait_for(lambda: caller.get(path).get_json()["state"] in states.FINISHED, what="the export ends")

        job = caller.get(path).get_json()
        assert (job["state"], job["error"]) == (states.SUCCESS, None)
        assert [step["state"] for step in job["steps"]] == [states.SUCCESS, states.SUCCESS]
        assert job["result"]["posts"] == 0
        assert job["finished_at"].endswith("Z")
        assert TaskSchema().validate(job) == {}


class TestTasks:
    def test_list_is_paged_newest_first(self, caller: Caller) -> None:
        ids = [ended_job("susan", minutes_ago=minutes) for minutes in range(5)]

        first = caller.get("/api/tasks?limit=2")
        second = caller.get(first.get_json()["next"])
        third = caller.get(second.get_json()["next"])

        assert TaskPageSchema().validate(first.get_json()) == {}
        assert [item["id"] for page in (first, second, third) for item in page.get_json()["items"]] == ids
        assert first.headers["Link"] == f'<{first.get_json()["next"]}>; rel="next"'
        assert (first.get_json()["prev"], third.get_json()["next"]) == (None, None)
        assert caller.get(third.get_json()["prev"]).get_json()["items"] == second.get_json()["items"]
        assert third.headers["Link"] == f'<{third.get_json()["prev"]}>; rel="prev"'

    def test_list_has_only_own_jobs(self, caller: Caller, david: Caller) -> None:
        ended_job("susan")

        assert david.get("/api/tasks").get_json()["items"] == []

    def test_invalid_limit_is_422_with_field(self, caller: Caller) -> None:
        for limit in ("0", "101", "abc", "", "-1", "1.5", "9" * 30):
            problem = assert_problem(caller.get(f"/api/tasks?limit={limit}"), 422)

            assert problem["errors"]["query"]["limit"]

    def test_invalid_page_key_is_400(self, caller: Caller) -> None:
        for key in ("x", "", "2026-13-01T00:00:00.000000Z_1", "%00", "2026-01-01T00:00:00.000000Z_"):
            assert_problem(caller.get(f"/api/tasks?before={key}"), 400)

    def test_step_has_own_fields_and_steps_of_job(self, caller: Caller) -> None:
        job = caller.post("/api/exports").get_json()
        mail = job["steps"][1]

        step = caller.get(f"/api/tasks/{mail['id']}").get_json()

        assert {key: step[key] for key in mail} == mail
        assert step["steps"] == job["steps"]
        assert set(step) == set(job)
        assert TaskSchema().validate(step) == {}

    def test_foreign_task_looks_like_unknown_task(self, caller: Caller, david: Caller) -> None:
        job = caller.post("/api/exports").get_json()
        foreign = [job["id"], job["steps"][1]["id"]]
        unknown = [UNKNOWN_ID, "x", "%00", "x" * 5000, "é", "' OR 1=1"]

        for method, path in ((david.get, ""), (david.post, "/cancel"), (david.post, "/retry")):
            answers = [method(f"/api/tasks/{task_id}{path}") for task_id in foreign + unknown]

            assert_problem(answers[0], 404)
            assert {(answer.status_code, answer.data) for answer in answers} == {(404, answers[0].data)}
        assert caller.get(f"/api/tasks/{job['id']}").get_json() == job

    def test_pending_job_is_cancelled_only_once(self, caller: Caller) -> None:
        job = caller.post("/api/exports").get_json()

        cancelled = caller.post(f"/api/tasks/{job['id']}/cancel")

        assert cancelled.status_code == 202
        assert cancelled.get_json()["state"] == states.REVOKED
        assert [step["state"] for step in cancelled.get_json()["steps"]] == [states.REVOKED, states.REVOKED]
        assert_problem(caller.post(f"/api/tasks/{job['id']}/cancel"), 409)

    def test_cancelling_a_step_cancels_its_job(self, caller: Caller) -> None:
        job = caller.post("/api/exports").get_json()
        mail = job["steps"][1]["id"]

        cancelled = caller.post(f"/api/tasks/{mail}/cancel")

        assert cancelled.get_json()["id"] == mail
        assert caller.get(f"/api/tasks/{job['id']}").get_json()["state"] == states.REVOKED

    def test_retry_creates_new_job(self, caller: Caller) -> None:
        for minutes_ago, state in enumerate([states.FAILURE, states.REVOKED]):
            old = ended_job("susan", state, minutes_ago)

            again = caller.post(f"/api/tasks/{old}/retry")

            assert again.status_code == 202
            assert again.headers["Location"] == f"/api/tasks/{again.get_json()['id']}"
            assert again.get_json()["retried_from"] == old
            assert again.get_json()["state"] == states.PENDING
            assert caller.get(f"/api/tasks/{old}").get_json()["state"] == state
            caller.post(f"{again.headers['Location']}/cancel")

    def test_retry_of_successful_job_is_409(self, caller: Caller) -> None:
        old = ended_job("susan", states.SUCCESS)

        assert "task" not in assert_problem(caller.post(f"/api/tasks/{old}/retry"), 409)

    def test_retry_is_409_with_running_task(self, caller: Caller) -> None:
        old = ended_job("susan", states.FAILURE)
        running = caller.post("/api/exports").get_json()["id"]

        refused = caller.post(f"/api/tasks/{old}/retry")

        assert assert_problem(refused, 409)["task"] == running
        assert refused.headers["Location"] == f"/api/tasks/{running}"

    def test_operator_fields_are_not_exposed(self, caller: Caller) -> None:
        ended_job("susan", traceback="secret traceback", worker="secret worker")

        assert "secret" not in caller.get("/api/tasks").text


@pytest.mark.parametrize("database", ["sqlite"])
class TestErrors:
    def test_malformed_json_is_400(self, caller: Caller) -> None:
        bodies = [b"{", b'{"a": NaN}', b'{"a": 1} {', b"\xff", b"[" * 100_000, b'"\\ud800"', b"\0"]
        for path in ("/api/exports", f"/api/tasks/{UNKNOWN_ID}/cancel", "/api/tokens"):
            for body in bodies:
                assert_problem(caller.post(path, data=body, content_type="application/json"), 400)

    def test_unexpected_json_is_422_with_fields(self, caller: Caller) -> None:
        for body in (b"[]", b"null", b'"text"', b"1", b'{"format": "html"}'):
            response = caller.post("/api/exports", data=body, content_type="application/json")

            assert assert_problem(response, 422)["errors"]["json"]
        assert caller.get("/api/tasks").get_json()["items"] == []

    def test_other_content_type_is_415(self, caller: Caller) -> None:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "text/html; x=é", ""):
            assert_problem(caller.post("/api/exports", data=b"a=b", content_type=content_type), 415)

    def test_large_body_is_413(self, caller: Caller) -> None:
        assert_problem(caller.post("/api/exports", data=b"x" * 2_000_000, content_type="application/json"), 413)

    def test_body_is_validated_only_after_authentication(self, client: FlaskClient) -> None:
        assert_problem(client.post("/api/exports", data=b"{", content_type="application/json"), 401)

    def test_unknown_path_and_wrong_method_are_problems(self, caller: Caller) -> None:
        refused = caller.put("/api/tasks")

        assert_problem(caller.get("/api/nothing"), 404)
        assert_problem(refused, 405)
        assert "GET" in refused.headers["Allow"]

    @pytest.fixture
    def in_production(self, make_app: Callable[..., Flask], make_user: Callable[..., User]) -> Caller:
        return caller_for(make_app(TESTING=False), make_user("susan"))

    def test_internal_error_exposes_no_details(self, in_production: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(pagination, "newest_first", fail)

        response = in_production.get("/api/tasks")

        assert_problem(response, 500)
        assert "secret" not in response.text

    def test_unavailable_database_is_503_with_retry_after(
        self, in_production: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise DatabaseUnavailable("SELECT secret", {}, Exception("secret detail"))

        monkeypatch.setattr(pagination, "newest_first", fail)

        response = in_production.get("/api/tasks")

        assert_problem(response, 503)
        assert int(response.headers["Retry-After"]) > 0
        assert "secret" not in response.text
