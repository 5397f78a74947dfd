"""The JSON API: who may call it, what it answers, and how it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from microblog import paging
from microblog.accounts.models import User
from microblog.api.models import ApiToken
from microblog.api.schemas import ProblemSchema, TaskPageSchema, TaskSchema, TokenSchema
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.models import Task
from tests.support.services import RedisServer, Worker, wait_for

UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"
JOB_FIELDS = {
    *("id", "name", "description", "state", "progress", "result", "error", "attempts"),
    *("created_at", "started_at", "finished_at", "steps"),
}


class Caller:
    """A program that calls the API for one user."""

    def __init__(self, client: FlaskClient, token: str) -> None:
        self.token = token
        self._client = client

    def __getattr__(self, method: str) -> Callable[..., TestResponse]:
        def request(path: str, **options: Any) -> TestResponse:
            db.session.rollback()
            headers = {"Authorization": f"Bearer {self.token}"}
            response: TestResponse = getattr(self._client, method)(path, headers=headers, **options)
            db.session.rollback()
            return response

        return request


def caller_for(app: Flask, user: User) -> Caller:
    token, _row = ApiToken.issue(user, timedelta(hours=1))
    db.session.commit()
    return Caller(app.test_client(use_cookies=False), token)


@pytest.fixture
def susan(app: Flask, make_user: Callable[..., User]) -> Caller:
    return caller_for(app, make_user("susan"))


@pytest.fixture
def david(app: Flask, make_user: Callable[..., User]) -> Caller:
    return caller_for(app, make_user("david"))


def assert_problem(response: TestResponse, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    problem: dict[str, Any] = response.get_json(force=True)
    assert ProblemSchema().validate(problem) == {}
    assert problem["status"] == status
    assert problem["detail"].endswith((".", ")")), "a sentence"
    assert "Traceback" not in response.text
    return problem


def ended_job(username: str, state: str = states.FAILURE, minutes_ago: int = 0, **columns: Any) -> str:
    """The id of an export that has ended, as it is in the database."""
    user = User.with_username(username)
    assert user is not None
    created_at = utcnow() - timedelta(minutes=minutes_ago)
    root_id = f"job-{username}-{minutes_ago}"
    for position, name in enumerate(["export_posts", "email_export"]):
        db.session.add(
            Task(
                id=root_id if position == 0 else f"{root_id}-mail",
                root_id=root_id,
                position=position,
                user_id=user.id,
                name=name,
                queue="exports",
                state=state,
                signature={"task": name, "args": [user.id] if position == 0 else [], "kwargs": {}, "options": {}},
                created_at=created_at,
                finished_at=created_at,
                **columns,
            )
        )
    db.session.commit()
    return root_id


@pytest.mark.parametrize("database", ["sqlite"])
class TestTokens:
    def test_a_password_buys_a_token_that_opens_the_api(self, app, client, make_user):
        make_user("susan", "cat-dog-fish")

        bought = client.post("/api/tokens", auth=("susan", "cat-dog-fish"))

        assert bought.status_code == 201
        assert TokenSchema().validate(bought.json) == {}
        assert bought.headers["Cache-Control"] == "no-store"
        assert Caller(client, bought.json["token"]).get("/api/tasks").json == {"items": [], "next": None}

    def test_only_the_hash_of_a_token_is_kept(self, app, susan):
        row = db.session.scalar(sa.select(ApiToken))

        assert len(row.hash) == 64
        assert susan.token not in repr(vars(row))

    def test_an_email_address_will_do_for_a_name(self, client, make_user):
        make_user("susan", "cat-dog-fish")

        assert client.post("/api/tokens", auth=("susan@example.com", "cat-dog-fish")).status_code == 201

    def test_a_wrong_password_and_an_unknown_user_are_refused_alike(self, client, make_user):
        make_user("susan")

        wrong = client.post("/api/tokens", auth=("susan", "dog"))
        unknown = client.post("/api/tokens", auth=("nobody", "dog"))

        assert_problem(wrong, 401)
        assert wrong.headers["WWW-Authenticate"] == 'Basic realm="Microblog API"'
        assert unknown.data == wrong.data

    def test_without_credentials_there_is_no_token(self, client):
        for header in ("", "Basic", "Basic !", "Basic 4pyT", "Basic c3VzYW4=", "Bearer x", "Basic AAAAOgAA", "x"):
            response = client.post("/api/tokens", headers={"Authorization": header})

            assert_problem(response, 401)
            assert response.headers["WWW-Authenticate"].startswith("Basic ")

    def test_a_password_longer_than_any_is_not_hashed(self, client, make_user, monkeypatch):
        make_user("susan")
        monkeypatch.setattr(User, "with_credentials", lambda *_: pytest.fail("it was hashed"))

        assert_problem(client.post("/api/tokens", auth=("susan", "x" * 5000)), 401)

    def test_the_rate_limit_of_signing_in_holds(self, make_app):
        client = make_app(RATELIMIT_ENABLED=True, RATELIMIT_SIGN_IN="2 per minute").test_client()

        for _ in range(2):
            assert_problem(client.post("/api/tokens", auth=("susan", "guess")), 401)
        refused = client.post("/api/tokens", auth=("susan", "guess"))

        assert_problem(refused, 429)
        assert int(refused.headers["Retry-After"]) > 0

    def test_nothing_opens_without_a_live_token(self, client):
        for header in ("", "Bearer", "Bearer wrong", "Bearer é", "Bearer \0", "Basic c3VzYW46eA==", "x"):
            response = client.get("/api/tasks", headers={"Authorization": header})

            assert_problem(response, 401)
            assert response.headers["WWW-Authenticate"].startswith('Bearer realm="Microblog API"')

    def test_an_expired_token_opens_nothing_and_goes_with_the_next_one(self, app, susan):
        db.session.execute(sa.update(ApiToken).values(expires_at=utcnow()))
        db.session.commit()

        refused = susan.get("/api/tasks")
        caller_for(app, User.with_username("susan"))

        assert_problem(refused, 401)
        assert "error=invalid_token" in refused.headers["WWW-Authenticate"].replace('"', "")
        assert db.session.scalar(sa.select(sa.func.count()).select_from(ApiToken)) == 1

    def test_a_revoked_token_opens_nothing_and_the_others_stay(self, app, susan):
        other = caller_for(app, User.with_username("susan"))

        assert susan.delete("/api/tokens").status_code == 204

        assert_problem(susan.get("/api/tasks"), 401)
        assert_problem(susan.delete("/api/tokens"), 401)
        assert other.get("/api/tasks").status_code == 200

    def test_use_is_noted_at_most_once_a_minute(self, susan):
        def last_used_at():
            return db.session.scalar(sa.select(ApiToken.last_used_at))

        susan.get("/api/tasks")
        first = last_used_at()
        susan.get("/api/tasks")
        second = last_used_at()
        db.session.execute(sa.update(ApiToken).values(last_used_at=first - timedelta(seconds=61)))
        db.session.commit()
        susan.get("/api/tasks")

        assert first == second
        assert last_used_at() >= first

    def test_a_session_cookie_opens_nothing(self, make_user, signed_in):
        browser = signed_in(make_user("susan"))

        assert_problem(browser.get("/api/tasks"), 401)
        assert_problem(browser.post("/api/exports"), 401)

    def test_no_csrf_token_is_asked_for(self, make_app, make_user):
        app = make_app(WTF_CSRF_ENABLED=True)

        assert caller_for(app, make_user("susan")).post("/api/exports").status_code == 202


class TestExports:
    def test_an_export_is_accepted_with_its_address(self, susan):
        started = susan.post("/api/exports")

        assert started.status_code == 202
        assert started.headers["Location"] == f"/api/tasks/{started.json['id']}"
        assert TaskSchema().validate(started.json) == {}
        assert set(started.json) >= JOB_FIELDS
        assert [step["name"] for step in started.json["steps"]] == ["export_posts", "email_export"]
        assert susan.get(started.headers["Location"]).json == started.json

    def test_an_empty_request_is_as_good_as_none(self, susan):
        for body in ({"json": {}}, {"data": b"", "content_type": "application/json"}, {"data": b""}):
            started = susan.post("/api/exports", **body)

            assert started.status_code == 202
            susan.post(f"{started.headers['Location']}/cancel")

    def test_a_second_export_is_refused_and_told_which_one_runs(self, susan):
        first = susan.post("/api/exports")

        second = susan.post("/api/exports")

        assert assert_problem(second, 409)["task"] == first.json["id"]
        assert second.headers["Location"] == first.headers["Location"]
        assert len(susan.get("/api/tasks").json["items"]) == 1

    def test_another_users_export_is_in_nobodys_way(self, susan, david):
        susan.post("/api/exports")

        assert david.post("/api/exports").status_code == 202

    def test_the_rate_limit_is_each_users_own(self, make_app, make_user):
        app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_EXPORT="1 per minute")
        susan, david = (caller_for(app, make_user(name)) for name in ("susan", "david"))

        susan.post("/api/exports")

        assert_problem(susan.post("/api/exports"), 429)
        assert david.post("/api/exports").status_code == 202

    def test_redis_being_away_loses_nothing(self, susan, redis_server: RedisServer):
        with redis_server.away():
            started = susan.post("/api/exports")

            assert started.status_code == 202
            assert susan.get(started.headers["Location"]).json["state"] == states.PENDING

    def test_it_can_be_followed_to_its_end(self, susan, worker: Worker):
        path = susan.post("/api/exports").headers["Location"]

        wait_for(lambda: susan.get(path).json["state"] in states.FINISHED, what="the export ends")

        job = susan.get(path).json
        assert (job["state"], job["error"]) == (states.SUCCESS, None)
        assert [step["state"] for step in job["steps"]] == [states.SUCCESS, states.SUCCESS]
        assert job["result"]["posts"] == 0
        assert job["finished_at"].endswith("Z")
        assert TaskSchema().validate(job) == {}


class TestTasks:
    def test_the_list_is_paged_newest_first(self, susan):
        ids = [ended_job("susan", minutes_ago=minutes) for minutes in range(5)]

        first = susan.get("/api/tasks?limit=2")
        second = susan.get(first.json["next"])
        third = susan.get(second.json["next"])

        assert TaskPageSchema().validate(first.json) == {}
        assert [item["id"] for page in (first, second, third) for item in page.json["items"]] == ids
        assert first.headers["Link"] == f'<{first.json["next"]}>; rel="next"'
        assert third.json["next"] is None
        assert "Link" not in third.headers

    def test_the_list_has_only_ones_own_jobs(self, susan, david):
        ended_job("susan")

        assert david.get("/api/tasks").json["items"] == []

    def test_a_page_of_impossible_size_is_refused_with_its_field(self, susan):
        for limit in ("0", "101", "abc", "", "-1", "1.5", "9" * 30):
            problem = assert_problem(susan.get(f"/api/tasks?limit={limit}"), 422)

            assert problem["errors"]["query"]["limit"]

    def test_a_page_key_that_is_none_is_refused(self, susan):
        for key in ("x", "", "2026-13-01T00:00:00.000000Z_1", "%00", "2026-01-01T00:00:00.000000Z_"):
            assert_problem(susan.get(f"/api/tasks?before={key}"), 400)

    def test_a_later_step_has_its_own_facts_and_the_steps_of_its_job(self, susan):
        job = susan.post("/api/exports").json
        mail = job["steps"][1]

        step = susan.get(f"/api/tasks/{mail['id']}").json

        assert {key: step[key] for key in mail} == mail
        assert step["steps"] == job["steps"]
        assert set(step) == set(job)
        assert TaskSchema().validate(step) == {}

    def test_a_foreign_task_is_as_unknown_as_one_that_never_was(self, susan, david):
        job = susan.post("/api/exports").json
        foreign = [job["id"], job["steps"][1]["id"]]
        unknown = [UNKNOWN_ID, "x", "%00", "x" * 5000, "é", "' OR 1=1"]

        for method, path in ((david.get, ""), (david.post, "/cancel"), (david.post, "/retry")):
            answers = [method(f"/api/tasks/{task_id}{path}") for task_id in foreign + unknown]

            assert_problem(answers[0], 404)
            assert {(answer.status_code, answer.data) for answer in answers} == {(404, answers[0].data)}
        assert susan.get(f"/api/tasks/{job['id']}").json == job

    def test_a_waiting_job_is_cancelled_at_once_and_only_once(self, susan):
        job = susan.post("/api/exports").json

        cancelled = susan.post(f"/api/tasks/{job['id']}/cancel")

        assert cancelled.status_code == 202
        assert cancelled.json["state"] == states.REVOKED
        assert [step["state"] for step in cancelled.json["steps"]] == [states.REVOKED, states.REVOKED]
        assert_problem(susan.post(f"/api/tasks/{job['id']}/cancel"), 409)

    def test_cancelling_a_step_cancels_the_job(self, susan):
        job = susan.post("/api/exports").json
        mail = job["steps"][1]["id"]

        cancelled = susan.post(f"/api/tasks/{mail}/cancel")

        assert cancelled.json["id"] == mail
        assert susan.get(f"/api/tasks/{job['id']}").json["state"] == states.REVOKED

    def test_what_ended_badly_can_be_tried_again_as_a_new_job(self, susan):
        for minutes_ago, state in enumerate([states.FAILURE, states.REVOKED]):
            old = ended_job("susan", state, minutes_ago)

            again = susan.post(f"/api/tasks/{old}/retry")

            assert again.status_code == 202
            assert again.headers["Location"] == f"/api/tasks/{again.json['id']}"
            assert again.json["retried_from"] == old
            assert again.json["state"] == states.PENDING
            assert susan.get(f"/api/tasks/{old}").json["state"] == state
            susan.post(f"{again.headers['Location']}/cancel")

    def test_what_succeeded_cannot_be_tried_again(self, susan):
        old = ended_job("susan", states.SUCCESS)

        assert "task" not in assert_problem(susan.post(f"/api/tasks/{old}/retry"), 409)

    def test_a_retry_beside_a_running_job_is_told_which_one_that_is(self, susan):
        old = ended_job("susan", states.FAILURE)
        running = susan.post("/api/exports").json["id"]

        refused = susan.post(f"/api/tasks/{old}/retry")

        assert assert_problem(refused, 409)["task"] == running
        assert refused.headers["Location"] == f"/api/tasks/{running}"

    def test_what_operators_see_stays_with_them(self, susan):
        ended_job("susan", traceback="secret traceback", worker="secret worker")

        assert "secret" not in susan.get("/api/tasks").text


@pytest.mark.parametrize("database", ["sqlite"])
class TestRefusals:
    def test_json_that_is_none_is_refused(self, susan):
        bodies = [b"{", b'{"a": NaN}', b'{"a": 1} {', b"\xff", b"[" * 100_000, b'"\\ud800"', b"\0"]
        for path in ("/api/exports", f"/api/tasks/{UNKNOWN_ID}/cancel", "/api/tokens"):
            for body in bodies:
                assert_problem(susan.post(path, data=body, content_type="application/json"), 400)

    def test_json_that_is_not_what_was_asked_for_is_refused_with_its_fields(self, susan):
        for body in (b"[]", b"null", b'"text"', b"1", b'{"format": "html"}'):
            response = susan.post("/api/exports", data=body, content_type="application/json")

            assert assert_problem(response, 422)["errors"]["json"]
        assert susan.get("/api/tasks").json["items"] == []

    def test_what_is_no_json_is_refused(self, susan):
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "text/html; x=é", ""):
            assert_problem(susan.post("/api/exports", data=b"a=b", content_type=content_type), 415)

    def test_what_is_too_large_is_refused(self, susan):
        assert_problem(susan.post("/api/exports", data=b"x" * 2_000_000, content_type="application/json"), 413)

    def test_a_stranger_learns_nothing_of_what_is_wrong_with_a_body(self, client):
        assert_problem(client.post("/api/exports", data=b"{", content_type="application/json"), 401)

    def test_an_unknown_address_and_a_wrong_method_are_problems_too(self, susan):
        refused = susan.put("/api/tasks")

        assert_problem(susan.get("/api/nothing"), 404)
        assert_problem(refused, 405)
        assert "GET" in refused.headers["Allow"]

    @pytest.fixture
    def in_production(self, make_app, make_user) -> Iterator[Caller]:
        return caller_for(make_app(TESTING=False), make_user("susan"))

    def test_a_fault_of_ours_is_a_problem_without_a_secret(self, in_production, monkeypatch):
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("secret detail")

        monkeypatch.setattr(paging, "newest_first", fail)

        response = in_production.get("/api/tasks")

        assert_problem(response, 500)
        assert "secret" not in response.text

    def test_a_database_that_is_away_is_a_problem_with_a_hint_when_to_come_back(self, in_production, monkeypatch):
        def fail(*_: Any, **__: Any) -> None:
            raise sa.exc.OperationalError("SELECT secret", {}, Exception("secret detail"))

        monkeypatch.setattr(paging, "newest_first", fail)

        response = in_production.get("/api/tasks")

        assert_problem(response, 503)
        assert int(response.headers["Retry-After"]) > 0
        assert "secret" not in response.text


@pytest.mark.parametrize("database", ["sqlite"])
class TestDocumentation:
    @pytest.fixture
    def document(self, client: FlaskClient) -> dict[str, Any]:
        response = client.get("/api/openapi.json")
        assert response.status_code == 200
        document: dict[str, Any] = response.json
        return document

    @pytest.fixture
    def operations(self, document) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            (method, path): operation
            for path, item in document["paths"].items()
            for method, operation in item.items()
            if method != "parameters"
        }

    def test_it_describes_every_route_and_no_other(self, app, operations):
        served = {
            (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
            for rule in app.url_map.iter_rules()
            if rule.rule.startswith("/api/") and not rule.endpoint.startswith(("api_docs", "api-docs"))
            for method in rule.methods - {"HEAD", "OPTIONS"}
        }

        assert set(operations) == served

    def test_every_reference_in_it_leads_somewhere(self, document):
        def references(part: Any) -> Iterator[str]:
            if isinstance(part, dict):
                if "$ref" in part:
                    yield part["$ref"]
                part = list(part.values())
            if isinstance(part, list):
                for item in part:
                    yield from references(item)

        for reference in references(document):
            place: Any = document
            for name in reference.removeprefix("#/").split("/"):
                place = place[name]
            assert place

    def test_it_has_what_every_document_must(self, document, operations):
        assert document["openapi"].startswith("3.1")
        assert document["info"]["title"]
        assert document["info"]["version"]
        assert {scheme["scheme"] for scheme in document["components"]["securitySchemes"].values()} == {
            "basic",
            "bearer",
        }
        assert {tag["name"] for tag in document["tags"]} == {"tokens", "exports", "tasks"}
        for (_method, path), operation in operations.items():
            assert operation["summary"]
            named = {each["name"] for each in document["paths"][path].get("parameters", [])}
            assert set(re.findall(r"{(\w+)}", path)) <= named

    def test_a_token_is_bought_with_a_password_and_all_else_with_a_token(self, document, operations):
        assert document["security"] == [{"bearer": []}]
        overridden = {key: each["security"] for key, each in operations.items() if "security" in each}
        assert overridden == {("post", "/api/tokens"): [{"basic": []}]}

    def test_each_answer_is_documented(self, document, operations):
        answers = {
            ("post", "/api/tokens"): "201 401 429",
            ("delete", "/api/tokens"): "204 401",
            ("post", "/api/exports"): "202 400 401 409 415 422 429",
            ("get", "/api/tasks"): "200 400 401 422",
            ("get", "/api/tasks/{task_id}"): "200 401 404",
            ("post", "/api/tasks/{task_id}/cancel"): "202 401 404 409",
            ("post", "/api/tasks/{task_id}/retry"): "202 401 404 409",
        }

        documented = {key: operation["responses"] for key, operation in operations.items()}

        assert {key: set(each) for key, each in documented.items()} == {
            key: {*statuses.split(), "default"} for key, statuses in answers.items()
        }

    def test_each_refusal_is_documented_as_a_problem(self, document, operations):
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status == "default" or int(status) >= HTTPStatus.BAD_REQUEST:
                    shared = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
                    schema = shared["content"]["application/problem+json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}

    def test_the_schema_says_what_a_task_is_under_which_id(self, document):
        task = document["components"]["schemas"]["Task"]

        assert "steps" in task["description"]
        assert set(task["properties"]) >= JOB_FIELDS
        assert set(task["properties"]["state"]["enum"]) == set(states.ALL)

    def test_its_page_has_nothing_inline_and_nothing_from_elsewhere(self, client):
        page = client.get("/api/docs")

        assert page.status_code == 200
        assert "unsafe-inline" not in page.headers["Content-Security-Policy"]
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page.text)
        addresses = re.findall(r'(?:src|href|data-document)="([^"]+)"', page.text)
        assert any(address.endswith("swagger-ui-bundle.js") for address in addresses)
        for address in addresses:
            assert address.startswith(("/", "#")), address
            assert not address.startswith("//")
            if address.startswith(("/api", "/static")):
                assert client.get(address).status_code == 200
