"""How often somebody may do a thing, how much of it they may have, and what they are told who want more."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from microblog.accounts.models import User
from microblog.notifications.pubsub import Hub, TooManyStreams, topic_of
from tests.support.api import Caller, assert_problem, caller_for

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # nothing is counted in it

PASSWORD = "cat-dog-fish"


@pytest.fixture
def limited(
    make_app: Callable[..., Flask], make_user: Callable[..., User]
) -> Callable[..., tuple[FlaskClient, Caller]]:
    """Susan's browser, and her program, where the limits are as a test says; Miguel is there too."""

    def site(**limits: Any) -> tuple[FlaskClient, Caller]:
        app = make_app(RATELIMIT_ENABLED=True, **limits)
        susan, _miguel = make_user("susan"), make_user("miguel")
        browser = app.test_client()
        assert sign_in(browser).status_code == 302
        return browser, caller_for(app, susan)

    return site


def sign_in(client: FlaskClient, address: str = "127.0.0.1", **fields: str) -> TestResponse:
    data = {"username": "susan", "password": PASSWORD} | fields
    return client.post("/auth/login", data=data, environ_base={"REMOTE_ADDR": address})


def test_posts_of_the_page_and_of_programs_are_counted_together(limited: Callable[..., Any]) -> None:
    browser, program = limited(RATELIMIT_POST="2 per hour")

    written = [program.post("/api/posts", json={"body": "one"}), browser.post("/", data={"post": "two"})]
    refused = browser.post("/", data={"post": "three"})

    assert [answer.status_code for answer in written] == [201, 302]
    assert refused.status_code == 429
    assert "three</textarea>" in refused.text, "it can be copied"
    assert_problem(program.post("/api/posts", json={"body": "four"}), 429)
    assert browser.get("/").status_code == 200


def test_following_is_limited_and_so_is_ceasing_to(limited: Callable[..., Any]) -> None:
    browser, program = limited(RATELIMIT_FOLLOW="4 per hour")

    answers = [
        browser.post("/follow/miguel"),
        browser.post("/unfollow/miguel"),
        program.put("/api/users/me/following/miguel"),
        program.delete("/api/users/me/following/miguel"),
        browser.post("/follow/miguel"),
        program.put("/api/users/me/following/miguel"),
        program.delete("/api/users/me/following/miguel"),
        browser.post("/unfollow/miguel"),
    ]

    assert [answer.status_code for answer in answers] == [302, 302, 204, 204, 429, 429, 429, 429]


def test_an_application_counts_in_redis_although_an_earlier_one_had_lost_it(
    limited: Callable[..., tuple[FlaskClient, Caller]], make_app: Callable[..., Flask]
) -> None:
    lost = make_app(RATELIMIT_ENABLED=True, RATELIMIT_STORAGE_URI="redis://127.0.0.1:1/0").test_client()
    assert sign_in(lost).status_code == 401

    browser, _program = limited(RATELIMIT_FOLLOW="1 per hour")
    answers = [browser.post("/follow/miguel"), browser.post("/unfollow/miguel")]

    assert [answer.status_code for answer in answers] == [302, 429]
    assert browser.application.extensions["redis"].keys("*RATELIMIT_FOLLOW*")


class TestSigningIn:
    def test_guesses_at_one_name_are_counted_wherever_they_come_from(self, make_app, make_user):
        make_user("susan")
        make_user("miguel")
        app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_SIGN_IN_NAME="4 per hour")
        addresses = (f"10.0.0.{number}" for number in itertools.count(1))

        def guess(name: str) -> int:
            return sign_in(app.test_client(), next(addresses), username=name, password="a guess").status_code

        def guess_by_program(name: str) -> int:
            base = {"REMOTE_ADDR": next(addresses)}
            return app.test_client().post("/api/tokens", auth=(name, "a guess"), environ_base=base).status_code

        guesses = [guess("susan"), guess("SUSAN"), guess_by_program("susan"), guess_by_program("Susan")]

        assert guesses == [401] * 4
        assert [guess("susan"), guess_by_program("susan")] == [429, 429]
        assert guess("miguel") == 401

    def test_guesses_at_one_address_are_counted_however_it_is_typed(self, make_app, make_user):
        make_user("susan")
        app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_SIGN_IN_NAME="2 per hour")
        typed = ["susan@example.com", "Susan@ｅxample.com", "susan@example。com"]

        guesses = [sign_in(app.test_client(), username=name, password="a guess").status_code for name in typed]

        assert guesses == [401, 401, 429]

    def test_one_address_keeps_nobody_out(self, make_app, make_user):
        make_user("susan")
        # As by default, but for the time that a busy machine may take.
        app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_SIGN_IN="10 per hour", RATELIMIT_SIGN_IN_NAME="30 per hour")

        guesses = [sign_in(app.test_client(), password="a guess").status_code for _ in range(20)]
        guesses += [app.test_client().post("/api/tokens", auth=("susan", "a guess")).status_code for _ in range(20)]

        assert guesses == [401] * 10 + [429] * 30
        assert sign_in(app.test_client(), "10.0.0.2").status_code == 302

    def test_nobody_who_is_in_is_thrown_out(self, limited):
        browser, program = limited(RATELIMIT_SIGN_IN_NAME="1 per hour")

        assert sign_in(browser.application.test_client(), "10.0.0.2").status_code == 429
        assert browser.get("/").status_code == 200
        assert program.get("/api/users/me").status_code == 200


@pytest.mark.parametrize(
    ("rate", "when"),
    [("1 per hour", "in 1 hour"), ("1 per 10 minutes", "in 10 minutes"), ("1 per 59 seconds", "in [0-9]+ seconds")],
)
def test_a_refusal_says_when_to_come_back(limited: Callable[..., Any], rate: str, when: str) -> None:
    browser, program = limited(RATELIMIT_POST=rate)
    browser.post("/", data={"post": "one"})

    page, problem = browser.post("/", data={"post": "two"}), program.post("/api/posts", json={"body": "two"})

    for told in (page.text, assert_problem(problem, 429)["detail"]):
        assert re.search(f"You have tried this too often. Try again {when}.", told)


def test_a_user_has_so_many_streams_and_others_have_theirs(limited: Callable[..., Any]) -> None:
    browser, _program = limited(STREAMS_PER_USER=2)
    hub: Hub = browser.application.extensions["hub"]
    with browser.get("/notifications/stream", buffered=False) as first:
        with browser.get("/notifications/stream", buffered=False) as second:
            third = browser.get("/notifications/stream")
            others = hub.join(["anything"], reader_id=1000)
        again = browser.get("/notifications/stream", buffered=False)

    others.close()
    again.close()
    assert [answer.status_code for answer in (first, second, third, again)] == [200, 200, 429, 200]
    assert "Too many of your pages are open at once." in third.text
    assert browser.get("/notifications").status_code == 200, "the page asks instead"


def test_streams_are_not_limited_where_nothing_is(make_app: Callable[..., Flask]) -> None:
    for limited, refused in ((True, True), (False, False)):
        hub: Hub = make_app(RATELIMIT_ENABLED=limited, STREAMS_PER_USER=1).extensions["hub"]
        pages = [hub.join([topic_of(7)], reader_id=7)]
        try:
            pages.append(hub.join([], reader_id=7))
        except TooManyStreams:
            assert refused
        else:
            assert not refused
        for page in pages:
            page.close()
