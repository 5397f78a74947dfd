"""The OpenAPI document describes the whole API, and its page loads nothing from other sites."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from microblog.taskqueue import states
from tests.support import not_none
from tests.support.api import JOB_FIELDS

TAGS = {"tokens", "users", "posts", "timelines", "search", "messages", "notifications", "exports", "imports", "tasks"}

# The statuses of each operation, in addition to those of every operation.
STATUSES = {
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

# These tests do not use the database.
pytestmark = pytest.mark.parametrize("database", ["sqlite"])


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    response = client.get("/api/openapi.json")
    assert response.status_code == 200
    document: dict[str, Any] = response.get_json()
    return document


@pytest.fixture
def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def test_document_has_every_route_and_no_other(app: Flask, operations: dict[tuple[str, str], dict[str, Any]]) -> None:
    served = {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/") and not rule.endpoint.startswith(("api_docs", "api-docs"))
        for method in not_none(rule.methods) - {"HEAD", "OPTIONS"}
    }

    assert set(operations) == served


def test_undocumented_method_is_405_with_allow_header(
    client: FlaskClient, document: dict[str, Any], operations: dict[tuple[str, str], dict[str, Any]]
) -> None:
    assert "refused with 405" in document["info"]["description"]
    for path in document["paths"]:
        documented = {method.upper() for method, operation_path in operations if operation_path == path}
        implied = {"OPTIONS", *(["HEAD"] if "GET" in documented else [])}
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"} - documented - implied:
            refusal = client.open(re.sub(r"{\w+}", "1", path), method=method)
            assert refusal.status_code == 405, (method, path)
            assert set(refusal.allow) == documented | implied, path
            assert refusal.content_type == "application/problem+json"


def test_only_request_schemas_forbid_additional_properties(
    document: dict[str, Any], operations: dict[tuple[str, str], dict[str, Any]]
) -> None:
    closed = {name for name, each in document["components"]["schemas"].items() if "additionalProperties" in each}
    sent = {
        body["schema"]["$ref"].rpartition("/")[2]
        for operation in operations.values()
        for body in operation.get("requestBody", {}).get("content", {}).values()
        if "$ref" in body["schema"]
    }

    assert closed == sent


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            if "$ref" in part:
                yield part["$ref"]
            part = list(part.values())
        if isinstance(part, list):
            for item in part:
                yield from references(item)

    for reference in references(document):
        target: Any = document
        for name in reference.removeprefix("#/").split("/"):
            target = target[name]
        assert target


def test_document_has_required_parts(
    document: dict[str, Any], operations: dict[tuple[str, str], dict[str, Any]]
) -> None:
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
        path_parameters = {each["name"] for each in document["paths"][path].get("parameters", [])}
        assert set(re.findall(r"{(\w+)}", path)) <= path_parameters


def test_security_schemes_of_operations(
    document: dict[str, Any], operations: dict[tuple[str, str], dict[str, Any]]
) -> None:
    assert document["security"] == [{"bearer": []}]
    overridden = {key: each["security"] for key, each in operations.items() if "security" in each}
    assert overridden == {("post", "/api/tokens"): [{"basic": []}], ("post", "/api/users"): []}


def test_every_status_is_documented(
    document: dict[str, Any], operations: dict[tuple[str, str], dict[str, Any]]
) -> None:
    always = ["400", "413", "415", "429", "500", "503"]

    documented = {key: operation["responses"] for key, operation in operations.items()}

    assert {key: set(each) for key, each in documented.items()} == {
        key: {*statuses.split(), *always, *(["304", "412"] if key[0] == "get" else [])}
        for key, statuses in STATUSES.items()
    }


def test_response_headers_are_documented(
    document: dict[str, Any], operations: dict[tuple[str, str], dict[str, Any]]
) -> None:
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


def test_error_responses_are_documented_as_problems(
    document: dict[str, Any], operations: dict[tuple[str, str], dict[str, Any]]
) -> None:
    for operation in operations.values():
        for status, response in operation["responses"].items():
            if int(status) >= HTTPStatus.BAD_REQUEST:
                shared = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
                schema = shared["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}


def test_task_schema_has_fields_and_states(document: dict[str, Any]) -> None:
    task = document["components"]["schemas"]["Task"]

    assert "steps" in task["description"]
    assert set(task["properties"]) >= JOB_FIELDS
    assert set(task["properties"]["state"]["enum"]) == set(states.ALL)


def test_page_has_no_inline_or_external_assets(client: FlaskClient) -> None:
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
