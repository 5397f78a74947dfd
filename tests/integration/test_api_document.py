"""The OpenAPI document tells the whole truth about the API, and the page that shows it needs nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest
from flask.testing import FlaskClient

from microblog.taskqueue import states
from tests.support.api import JOB_FIELDS

TAGS = {"tokens", "users", "posts", "timelines", "search", "messages", "notifications", "exports", "imports", "tasks"}

# What each operation may answer besides what all may.
ANSWERS = {
    ("post", "/api/tokens"): "201 401 409 422",
    ("get", "/api/tokens"): "200 401 422",
    ("delete", "/api/tokens"): "204 401",
    ("delete", "/api/tokens/{token_id}"): "204 401 404",
    ("get", "/api/users"): "200 401 422",
    ("post", "/api/users"): "201 422",
    ("get", "/api/users/{username}"): "200 401 404",
    ("patch", "/api/users/{username}"): "200 401 403 404 422",
    ("get", "/api/users/{username}/followers"): "200 401 404 422",
    ("get", "/api/users/{username}/following"): "200 401 404 422",
    ("put", "/api/users/{username}/following/{followed}"): "204 401 403 404 409",
    ("delete", "/api/users/{username}/following/{followed}"): "204 401 403 404",
    ("get", "/api/users/{username}/posts"): "200 401 404 422",
    ("post", "/api/posts"): "201 401 422",
    ("get", "/api/posts/{post_id}"): "200 401 404",
    ("delete", "/api/posts/{post_id}"): "204 401 403 404",
    ("post", "/api/posts/{post_id}/translation"): "200 401 404 502",
    ("get", "/api/timelines/home"): "200 401 422",
    ("get", "/api/timelines/explore"): "200 401 422",
    ("get", "/api/search"): "200 401 422",
    ("get", "/api/messages"): "200 401 422",
    ("get", "/api/messages/sent"): "200 401 422",
    ("post", "/api/messages"): "201 401 422",
    ("post", "/api/messages/read"): "204 401 422",
    ("get", "/api/messages/{message_id}"): "200 401 404",
    ("delete", "/api/messages/{message_id}"): "204 401 404",
    ("get", "/api/notifications"): "200 401 422",
    ("post", "/api/notifications/read"): "204 401 422",
    ("post", "/api/exports"): "202 401 409 422",
    ("post", "/api/imports"): "202 401 409 422",
    ("get", "/api/tasks"): "200 401 422",
    ("get", "/api/tasks/{task_id}"): "200 401 404",
    ("post", "/api/tasks/{task_id}/cancel"): "202 401 404 409",
    ("post", "/api/tasks/{task_id}/retry"): "202 401 404 409",
    ("get", "/api/imports/{task_id}/refusals"): "200 401 404 422",
}

# It asks no database.
pytestmark = pytest.mark.parametrize("database", ["sqlite"])


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    response = client.get("/api/openapi.json")
    assert response.status_code == 200
    document: dict[str, Any] = response.json
    return document


@pytest.fixture
def operations(document) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def test_it_describes_every_route_and_no_other(app, operations):
    served = {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/") and not rule.endpoint.startswith(("api_docs", "api-docs"))
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }

    assert set(operations) == served


def test_what_it_does_not_have_is_refused_and_the_refusal_says_what_there_is(client, document, operations):
    assert "refused with 405" in document["info"]["description"]
    for path in document["paths"]:
        taken = {method.upper() for method, of in operations if of == path}
        implied = {"OPTIONS", *(["HEAD"] if "GET" in taken else [])}
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"} - taken - implied:
            refusal = client.open(re.sub(r"{\w+}", "1", path), method=method)
            assert refusal.status_code == 405, (method, path)
            assert set(refusal.allow) == taken | implied, path
            assert refusal.content_type == "application/problem+json"


def test_what_is_sent_has_no_other_fields_by_the_document_and_what_is_answered_may(document, operations):
    closed = {name for name, each in document["components"]["schemas"].items() if "additionalProperties" in each}
    sent = {
        body["schema"]["$ref"].rpartition("/")[2]
        for operation in operations.values()
        for body in operation.get("requestBody", {}).get("content", {}).values()
        if "$ref" in body["schema"]
    }

    assert closed == sent


def test_every_reference_in_it_leads_somewhere(document):
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


def test_it_has_what_every_document_must(document, operations):
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"]
    assert document["info"]["version"]
    assert {scheme["scheme"] for scheme in document["components"]["securitySchemes"].values()} == {
        "basic",
        "bearer",
    }
    assert {tag["name"] for tag in document["tags"]} == TAGS
    for (_method, path), operation in operations.items():
        assert operation["summary"]
        named = {each["name"] for each in document["paths"][path].get("parameters", [])}
        assert set(re.findall(r"{(\w+)}", path)) <= named


def test_a_token_is_bought_with_a_password_and_all_else_with_a_token(document, operations):
    assert document["security"] == [{"bearer": []}]
    overridden = {key: each["security"] for key, each in operations.items() if "security" in each}
    assert overridden == {("post", "/api/tokens"): [{"basic": []}], ("post", "/api/users"): []}


def test_each_answer_is_documented(document, operations):
    always = ["400", "413", "415", "429", "500", "503"]

    documented = {key: operation["responses"] for key, operation in operations.items()}

    assert {key: set(each) for key, each in documented.items()} == {
        key: {*statuses.split(), *always, *(["304", "412"] if key[0] == "get" else [])}
        for key, statuses in ANSWERS.items()
    }


def test_each_answer_has_its_headers(document, operations):
    def headers_of(answer: dict[str, Any]) -> set[str]:
        if "$ref" in answer:
            answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        return set(answer["headers"])

    for (method, path), operation in operations.items():
        for status, answer in operation["responses"].items():
            headers = headers_of(answer)
            assert headers >= {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
            assert ("ETag" in headers) == (method == "get" and status in ("200", "304")), path
            assert ("Retry-After" in headers) == (status in ("429", "503")), path


def test_each_refusal_is_documented_as_a_problem(document, operations):
    for operation in operations.values():
        for status, response in operation["responses"].items():
            if int(status) >= HTTPStatus.BAD_REQUEST:
                shared = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
                schema = shared["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}


def test_the_schema_says_what_a_task_is_under_which_id(document):
    task = document["components"]["schemas"]["Task"]

    assert "steps" in task["description"]
    assert set(task["properties"]) >= JOB_FIELDS
    assert set(task["properties"]["state"]["enum"]) == set(states.ALL)


def test_its_page_has_nothing_inline_and_nothing_from_elsewhere(client):
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
