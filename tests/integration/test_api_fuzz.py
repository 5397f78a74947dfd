"""Fuzz tests: no request makes the site fail, and the API responds as its OpenAPI document says.

API_FUZZ_EXAMPLES is the number of requests of each kind per operation; another API_FUZZ_SEED selects other requests.
"""

from __future__ import annotations

import os
import traceback
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from flask import Flask

from microblog.accounts.models import User
from microblog.api.models import ApiToken
from microblog.extensions import db
from microblog.messages.services import send_message
from microblog.posts.models import Post
from tests.conftest import hash_of
from tests.fuzz import run
from tests.fuzz.contract import check_operation, operations_of
from tests.fuzz.run import PASSWORD, Fuzzer

EXAMPLES = int(os.environ.get("API_FUZZ_EXAMPLES", "2"))
SEED = int(os.environ.get("API_FUZZ_SEED", "1"))
REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "1500"))
TEST_TIMEOUT = 600 if EXAMPLES < 10 else 0  # seconds; no limit for a longer run
REQUEST_TIMEOUT = 60.0  # seconds: a request that takes longer hangs, even on a busy machine
# Each case runs on one database, which halves the time; a longer run covers both.
RUNS = (
    [("postgresql", True), ("sqlite", False)]
    if EXAMPLES < 10
    else list(product(("postgresql", "sqlite"), (True, False)))
)


@pytest.fixture
def fuzzed(make_app: Callable[..., Flask]) -> Flask:
    """An app with the error handling of production, and rate limits that are too high to be reached."""
    app: Flask = make_app(TESTING=False, RATELIMIT_ENABLED=True)
    limits = [name for name, value in app.config.items() if name.startswith("RATELIMIT_") and " per " in str(value)]
    app.config.update(dict.fromkeys(limits, "1000000 per minute"))
    return app


@dataclass
class Account:
    """A user whose account, posts, jobs and tokens the requests refer to."""

    token: str
    arguments: dict[str, Any]


def new_account(number: int) -> Account:
    """Create an account. Each operation gets its own, because a request may rename the user or revoke the token."""
    user, other = (
        User(username=f"{name}-{number}", email=f"{name}-{number}@example.com", password_hash=hash_of(PASSWORD))
        for name in ("susan", "david")
    )
    db.session.add_all([user, other])
    db.session.flush()
    post = Post(body="Hello", author=user)
    db.session.add(post)
    task = user.launch_task("export_posts", "Exporting your posts")
    token, _row = ApiToken.issue(user, timedelta(hours=1))
    _token, spare = ApiToken.issue(user, timedelta(hours=1), "spare")
    db.session.commit()
    message = send_message(other, user, "Hello")
    arguments = {"username": user.username, "followed": other.username, "post_id": post.id, "token_id": spare.id}
    return Account(token, arguments | {"task_id": task.id, "message_id": message.id})


@pytest.mark.timeout(TEST_TIMEOUT)
@pytest.mark.parametrize(("database", "signed_in"), RUNS, ids=str)
@pytest.mark.exhaustive
def test_api_conforms_to_its_document(fuzzed: Flask, signed_in: bool) -> None:
    faults = []
    for number, operation in enumerate(operations_of(fuzzed)):
        account = new_account(number)
        authorization = f"Bearer {account.token}" if signed_in else None
        if operation.label == "POST /api/tokens":
            authorization = f"Basic {b64encode(f'susan-{number}:{PASSWORD}'.encode()).decode()}"
        try:
            check_operation(operation, authorization, account.arguments, EXAMPLES if signed_in else 1, SEED)
        except (AssertionError, BaseExceptionGroup) as fault:
            faults.append("".join([operation.label, *traceback.format_exception_only(fault)]))

    assert faults == [], "\n".join(faults)


def test_deleted_resources_are_404(fuzzed: Flask, database: str) -> None:
    account = new_account(0)
    client, headers = fuzzed.test_client(), {"Authorization": f"Bearer {account.token}"}
    paths = client.get("/api/openapi.json").get_json()["paths"]
    readable = [path.format(**account.arguments) for path, item in paths.items() if {"get", "delete"} <= set(item)]
    deletable = [path for path in readable if path != "/api/tokens"]
    assert len(deletable) >= 2

    statuses = [
        [client.open(path, method=method, headers=headers).status_code for method in ("GET", "DELETE", "GET", "DELETE")]
        for path in deletable
    ]

    assert statuses == [[200, 204, 404, 404]] * len(deletable)


@pytest.mark.timeout(TEST_TIMEOUT)
@pytest.mark.both_databases
@pytest.mark.exhaustive
def test_random_requests_cause_no_internal_error(
    make_app: Callable[..., Flask], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SLOW", REQUEST_TIMEOUT)
    app = make_app(TESTING=False, STREAM_HEARTBEAT=1.0)

    report = Fuzzer(app, SEED).run(0, REQUESTS // 2)

    assert report.faults == []
    assert set(report.asked) == {rule.rule for rule in app.url_map.iter_rules()}
