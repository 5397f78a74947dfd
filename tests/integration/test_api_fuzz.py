"""Nothing that is sent to the site makes it fail, and the API answers nothing that its document does not say.

API_FUZZ_EXAMPLES is how many right and how many wrong requests each operation gets; API_FUZZ_SEED chooses others.
"""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from flask import Flask
from hypothesis.errors import Unsatisfiable

from microblog.accounts.models import User
from microblog.api.models import ApiToken
from microblog.extensions import db
from tests.fuzz.contract import hold_to_its_word, operations_of
from tests.fuzz.run import PASSWORD, Fuzzer

EXAMPLES = int(os.environ.get("API_FUZZ_EXAMPLES", "4"))
SEED = int(os.environ.get("API_FUZZ_SEED", "1"))
REQUESTS = 2000
PATIENCE = 120 if EXAMPLES < 10 else 0  # seconds; none if more was asked for


@pytest.fixture
def database() -> str:
    """Hardly any answer depends on which database there is."""
    return "sqlite"


@pytest.fixture
def fuzzed(make_app) -> Flask:
    """An app that fails as it would in production, with its rate limits on, but out of reach."""
    plenty = "1000000 per minute"
    return make_app(TESTING=False, RATELIMIT_ENABLED=True, RATELIMIT_API=plenty, RATELIMIT_SIGN_IN=plenty)


def token_of(name: str) -> str:
    """A new token of a user, who is made again if need be."""
    user = User.with_username(name)
    if user is None:
        user = User(username=name, email=f"{name}@example.com")
        user.set_password(PASSWORD)
        db.session.add(user)
        db.session.flush()
    token, _row = ApiToken.issue(user, timedelta(hours=1))
    db.session.commit()
    return token


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("signed_in", [True, False], ids=["with a token", "without"])
def test_the_api_answers_as_its_document_says(fuzzed, signed_in):
    faults = []
    for operation in operations_of(fuzzed):
        # A new one each time: an operation may revoke it.
        authorization = f"Bearer {token_of('susan')}" if signed_in else None
        try:
            hold_to_its_word(operation, authorization, EXAMPLES if signed_in else 1, SEED)
        except Unsatisfiable:  # there is no wrong request to an operation that takes nothing
            continue
        except BaseExceptionGroup as group:
            faults.append(f"{operation.label}: {'; '.join(map(str, group.exceptions))}")
        except AssertionError as error:
            faults.append(f"{operation.label}: {error}")

    assert faults == []


@pytest.mark.timeout(PATIENCE)
def test_random_requests_to_every_route_are_never_a_fault_of_ours(make_app):
    app = make_app(TESTING=False, STREAM_HEARTBEAT=1.0)

    report = Fuzzer(app, SEED).run(0, REQUESTS)

    assert report.faults == []
    assert set(report.asked) == {rule.rule for rule in app.url_map.iter_rules()}
