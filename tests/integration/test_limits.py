"""Rate limits and the limit of open streams, and the responses to requests that exceed them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.notifications.pubsub import Hub, TooManyStreams, user_topic
from tests.support.api import Caller, assert_problem, caller_for
from tests.support.clients import sign_in

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # the counters are in Redis


@pytest.fixture
def limited(
    make_app: Callable[..., Flask], make_user: Callable[..., User]
) -> Callable[..., tuple[FlaskClient, Caller]]:
    """Return a function that makes an app with the given limits, and returns Susan's browser and API client.

    The user Miguel exists, too.
    """

    def site(**limits: Any) -> tuple[FlaskClient, Caller]:
        app = make_app(RATELIMIT_ENABLED=True, **limits)
        susan, _miguel = make_user("susan"), make_user("miguel")
        browser = app.test_client()
        assert sign_in(browser).status_code == 302
        return browser, caller_for(app, susan)

    return site


def test_posts_by_page_and_api_share_rate_limit(limited: Callable[..., Any]) -> None:
    browser, caller = limited(RATELIMIT_POST="2 per hour")

    accepted = [caller.post("/api/posts", json={"body": "one"}), browser.post("/", data={"post": "two"})]
    refused = browser.post("/", data={"post": "three"})

    assert [response.status_code for response in accepted] == [201, 302]
    assert refused.status_code == 429
    assert "three</textarea>" in refused.text, "the text can be copied"
    assert_problem(caller.post("/api/posts", json={"body": "four"}), 429)
    assert browser.get("/").status_code == 200


def test_follow_and_unfollow_share_rate_limit(limited: Callable[..., Any]) -> None:
    browser, caller = limited(RATELIMIT_FOLLOW="4 per hour")

    responses = [
        browser.post("/follow/miguel"),
        browser.post("/unfollow/miguel"),
        caller.put("/api/users/me/following/miguel"),
        caller.delete("/api/users/me/following/miguel"),
        browser.post("/follow/miguel"),
        caller.put("/api/users/me/following/miguel"),
        caller.delete("/api/users/me/following/miguel"),
        browser.post("/unfollow/miguel"),
    ]

    assert [response.status_code for response in responses] == [302, 302, 204, 204, 429, 429, 429, 429]


def test_app_counts_in_redis_after_another_lost_it(
    limited: Callable[..., tuple[FlaskClient, Caller]], make_app: Callable[..., Flask]
) -> None:
    app_without_redis = make_app(RATELIMIT_ENABLED=True, RATELIMIT_STORAGE_URI="redis://127.0.0.1:1/0").test_client()
    assert sign_in(app_without_redis).status_code == 401

    browser, _caller = limited(RATELIMIT_FOLLOW="1 per hour")
    responses = [browser.post("/follow/miguel"), browser.post("/unfollow/miguel")]

    assert [response.status_code for response in responses] == [302, 429]
    assert browser.application.extensions["redis"].keys("*RATELIMIT_FOLLOW*")


class TestSigningIn:
    def test_limit_per_username_spans_addresses(
        self, make_app: Callable[..., Flask], make_user: Callable[..., User]
    ) -> None:
        make_user("susan")
        make_user("miguel")
        app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_SIGN_IN_NAME="4 per hour")
        addresses = (f"10.0.0.{number}" for number in itertools.count(1))

        def guess(name: str) -> int:
            return sign_in(app.test_client(), name, "a guess", address=next(addresses)).status_code

        def guess_by_api(name: str) -> int:
            base = {"REMOTE_ADDR": next(addresses)}
            return app.test_client().post("/api/tokens", auth=(name, "a guess"), environ_base=base).status_code

        guesses = [guess("susan"), guess("SUSAN"), guess_by_api("susan"), guess_by_api("Susan")]

        assert guesses == [401] * 4
        assert [guess("susan"), guess_by_api("susan")] == [429, 429]
        assert guess("miguel") == 401

    def test_limit_per_email_ignores_spelling(
        self, make_app: Callable[..., Flask], make_user: Callable[..., User]
    ) -> None:
        make_user("susan")
        app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_SIGN_IN_NAME="2 per hour")
        spellings = ["susan@example.com", "Susan@ｅxample.com", "susan@example。com"]

        guesses = [sign_in(app.test_client(), name, "a guess").status_code for name in spellings]

        assert guesses == [401, 401, 429]

    def test_blocked_address_does_not_block_others(
        self, make_app: Callable[..., Flask], make_user: Callable[..., User]
    ) -> None:
        make_user("susan")
        # The default limits, but per hour, since a busy machine may be slow.
        app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_SIGN_IN="10 per hour", RATELIMIT_SIGN_IN_NAME="30 per hour")

        guesses = [sign_in(app.test_client(), password="a guess").status_code for _ in range(20)]
        guesses += [app.test_client().post("/api/tokens", auth=("susan", "a guess")).status_code for _ in range(20)]

        assert guesses == [401] * 10 + [429] * 30
        assert sign_in(app.test_client(), address="10.0.0.2").status_code == 302

    def test_limit_does_not_affect_existing_sessions(self, limited: Callable[..., tuple[FlaskClient, Caller]]) -> None:
        browser, caller = limited(RATELIMIT_SIGN_IN_NAME="1 per hour")

        assert sign_in(browser.application.test_client(), address="10.0.0.2").status_code == 429
        assert browser.get("/").status_code == 200
        assert caller.get("/api/users/me").status_code == 200


@pytest.mark.parametrize(
    ("rate", "when"),
    [("1 per hour", "in 1 hour"), ("1 per 10 minutes", "in 10 minutes"), ("1 per 59 seconds", "in [0-9]+ seconds")],
)
def test_refusal_states_when_to_retry(limited: Callable[..., Any], rate: str, when: str) -> None:
    browser, caller = limited(RATELIMIT_POST=rate)
    browser.post("/", data={"post": "one"})

    page, problem = browser.post("/", data={"post": "two"}), caller.post("/api/posts", json={"body": "two"})

    for message in (page.text, assert_problem(problem, 429)["detail"]):
        assert re.search(f"You have tried this too often. Try again {when}.", message)


def test_streams_are_limited_per_user(limited: Callable[..., Any]) -> None:
    browser, _caller = limited(STREAMS_PER_USER=2)
    hub: Hub = browser.application.extensions["hub"]
    with browser.get("/notifications/stream", buffered=False) as first:
        with browser.get("/notifications/stream", buffered=False) as second:
            third = browser.get("/notifications/stream")
            other_user = hub.subscribe(["anything"], user_id=1000)
        reopened = browser.get("/notifications/stream", buffered=False)

    other_user.close()
    reopened.close()
    assert [response.status_code for response in (first, second, third, reopened)] == [200, 200, 429, 200]
    assert "Too many of your pages are open at once." in third.text
    assert browser.get("/notifications").status_code == 200, "the page polls instead"


def test_streams_are_unlimited_without_rate_limits(make_app: Callable[..., Flask]) -> None:
    for limited, refused in ((True, True), (False, False)):
        hub: Hub = make_app(RATELIMIT_ENABLED=limited, STREAMS_PER_USER=1).extensions["hub"]
        pages = [hub.subscribe([user_topic(7)], user_id=7)]
        try:
            pages.append(hub.subscribe([], user_id=7))
        except TooManyStreams:
            assert refused
        else:
            assert not refused
        for page in pages:
            page.close()
