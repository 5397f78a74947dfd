"""The API's users, followers, posts and timelines: responses and access."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.api.schemas import PostPageSchema, PostSchema, ProfileSchema, UserPageSchema
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.posts.models import MAX_POST, Post
from tests.support import not_none
from tests.support.api import Caller, assert_problem, caller_for
from tests.support.servers import RedisServer


@pytest.fixture
def david(app: Flask, make_user: Callable[..., User]) -> Caller:
    return caller_for(app, make_user("David"))


def all_of(caller: Caller, path: str, link: str = "next") -> list[list[dict[str, Any]]]:
    """Return the items of each page, beginning with the page at `path`."""
    items = []
    while path:
        page = caller.get(path).get_json()
        items.append(page["items"])
        path = page[link]
    return items


class TestUsers:
    def test_list_is_paged_by_name_in_both_directions(self, caller: Caller, make_user: Callable[..., User]) -> None:
        for name in ("adam", "Bert", "carol", "zoe"):
            make_user(name)

        pages = all_of(caller, "/api/users?limit=2")
        last = caller.get("/api/users?limit=2&after=susan")

        assert [[user["username"] for user in page] for page in pages] == [
            ["adam", "Bert"],
            ["carol", "susan"],
            ["zoe"],
        ]
        assert UserPageSchema().validate(last.get_json()) == {}
        assert last.headers["Link"] == f'<{last.get_json()["prev"]}>; rel="prev"'
        assert all_of(caller, last.get_json()["prev"], "prev") == pages[1::-1]

    def test_invalid_page_key_is_400(self, caller: Caller) -> None:
        for query in ("after=%00", "before=a%20b", "after=" + "x" * 65, "before=adam&after=adam", "after="):
            assert_problem(caller.get(f"/api/users?{query}"), 400)

    def test_profile_shows_email_only_to_its_user(self, caller: Caller, david: Caller) -> None:
        caller.put("/api/users/susan/following/david")

        seen = caller.get("/api/users/DAVID").get_json()
        own = david.get("/api/users/me").get_json()

        assert ProfileSchema().validate(seen) == ProfileSchema().validate(own) == {}
        assert (seen["username"], seen["followers"], seen["following"], seen["is_followed"]) == ("David", 1, 0, True)
        assert "email" not in seen
        assert own["email"] == "David@example.com"
        assert_problem(caller.get("/api/users/unknown"), 404)

    def test_created_account_can_get_a_token(self, client: FlaskClient) -> None:
        account = {"username": "ines", "email": "Ines@EXAMPLE.com", "password": "cat-dog-fish"}

        created = client.post("/api/users", json=account)

        assert created.status_code == 201
        assert created.headers["Location"] == "/api/users/ines"
        assert created.get_json()["email"] == "Ines@example.com"
        assert "password" not in created.text
        assert client.post("/api/tokens", auth=("ines", "cat-dog-fish")).status_code == 201

    def test_invalid_account_is_422_with_field(self, client: FlaskClient, make_user: Callable[..., User]) -> None:
        make_user("susan")
        good = {"username": "ines", "email": "ines@example.com", "password": "cat-dog-fish"}
        for field, value in (
            *(
                ("username", "SUSAN"),
                ("username", "me"),
                ("username", "a b c"),
                ("username", "ines\n"),
                ("username", "x" * 65),
                ("username", 7),
            ),
            *(("email", "susan@EXAMPLE.com"), ("email", "ines"), ("email", "x" * 300 + "@example.com")),
            *(("password", "short"), ("password", "x" * 1025), ("password", "cat-dog\0fish"), ("is_operator", True)),
        ):
            refused = client.post("/api/users", json=good | {field: value})

            assert list(assert_problem(refused, 422)["errors"]["json"]) == [field]
        assert User.with_username("ines") is None

    def test_account_creation_is_rate_limited(self, make_app: Callable[..., Flask]) -> None:
        client = make_app(RATELIMIT_ENABLED=True, RATELIMIT_SIGN_IN="1 per hour").test_client()

        account = {"username": "ines", "email": "no address", "password": "cat-dog-fish"}

        assert_problem(client.post("/api/users", json=account), 422)
        assert_problem(client.post("/api/users", json=account), 429)

    def test_users_change_only_their_own_profile(self, caller: Caller, david: Caller) -> None:
        changed = caller.patch("/api/users/susan", json={"username": "Susanna", "about_me": "Rows.\r\nReads."})
        unchanged = caller.patch("/api/users/me", json={})

        assert changed.get_json()["about_me"] == "Rows.\nReads."
        assert changed.get_json() == unchanged.get_json() == caller.get("/api/users/susanna").get_json()
        assert (
            "username"
            in assert_problem(caller.patch("/api/users/me", json={"username": "DAVID"}), 422)["errors"]["json"]
        )
        assert_problem(david.patch("/api/users/susanna", json={"about_me": "x"}), 403)
        assert_problem(david.patch("/api/users/unknown", json={}), 404)

    def test_language_and_timezone_are_private(self, caller: Caller, david: Caller) -> None:
        chosen = caller.patch("/api/users/me", json={"language": "es", "timezone": "Europe/Madrid"})
        cleared = caller.patch("/api/users/me", json={"timezone": None})
        refused = caller.patch("/api/users/me", json={"language": "tlh", "timezone": "Mars/Olympus"})

        assert (chosen.get_json()["language"], chosen.get_json()["timezone"]) == ("es", "Europe/Madrid")
        assert (cleared.get_json()["language"], cleared.get_json()["timezone"]) == ("es", None)
        assert ProfileSchema().validate(cleared.get_json()) == {}
        assert list(assert_problem(refused, 422)["errors"]["json"]) == ["language", "timezone"]
        assert not {"language", "timezone"} & david.get("/api/users/susan").get_json().keys()

    def test_profile_has_last_seen_at(
        self, caller: Caller, david: Caller, signed_in: Callable[..., FlaskClient]
    ) -> None:
        initial = caller.get("/api/users/David").get_json()["last_seen_at"]
        signed_in(not_none(User.with_username("david"))).get("/explore").close()

        assert initial is None
        assert caller.get("/api/users/David").get_json()["last_seen_at"].endswith("Z")

    def test_username_with_newline_is_refused(self, caller: Caller) -> None:
        refused = caller.patch("/api/users/me", json={"username": "susan\n"})

        assert list(assert_problem(refused, 422)["errors"]["json"]) == ["username"]
        assert caller.get("/api/users/me").get_json()["username"] == "susan"


class TestFollowing:
    def test_follow_and_unfollow_are_idempotent(self, caller: Caller, david: Caller) -> None:
        for _ in range(2):
            assert caller.put("/api/users/me/following/David").status_code == 204
            followers = caller.get("/api/users/david/followers").get_json()["items"]
            followed = david.get("/api/users/susan/following").get_json()["items"]
            assert [user["username"] for user in followers] == ["susan"]
            assert [user["username"] for user in followed] == ["David"]
        for _ in range(2):
            assert caller.delete("/api/users/susan/following/David").status_code == 204
            assert caller.get("/api/users/david/followers").get_json()["items"] == []

    def test_follow_refused_for_self_and_other_users(self, caller: Caller, david: Caller) -> None:
        assert_problem(caller.put("/api/users/me/following/susan"), 409)
        assert_problem(caller.put("/api/users/david/following/susan"), 403)
        assert_problem(caller.delete("/api/users/david/following/susan"), 403)
        assert_problem(caller.put("/api/users/me/following/unknown"), 404)


class TestPosts:
    def test_post_is_deleted_only_by_author(self, caller: Caller, david: Caller) -> None:
        written = caller.post("/api/posts", json={"body": " Hello,\r\nworld \n"})
        path = written.headers["Location"]

        assert written.status_code == 201
        assert PostSchema().validate(written.get_json()) == {}
        assert (written.get_json()["body"], written.get_json()["author"]) == ("Hello,\nworld", "susan")
        assert david.get(path).get_json() == written.get_json()
        assert_problem(david.delete(path), 403)
        assert caller.delete(path).status_code == 204
        assert_problem(caller.get(path), 404)
        assert_problem(caller.delete(path), 404)

    def test_empty_or_long_post_is_refused(self, caller: Caller) -> None:
        for body in ("", " \n", "x" * (MAX_POST + 1), "a\0b", None, 7, ["x"]):
            assert assert_problem(caller.post("/api/posts", json={"body": body}), 422)["errors"]["json"]["body"]
        assert_problem(caller.post("/api/posts", json={}), 422)
        assert caller.post("/api/posts", json={"body": "x" * MAX_POST}).status_code == 201

    @pytest.mark.both_databases(each_run=False)
    def test_out_of_range_id_is_404(self, caller: Caller) -> None:
        for number in ("0", "999", str(2**31), str(2**63), "9" * 40, "-1", "x"):
            assert_problem(caller.get(f"/api/posts/{number}"), 404)
            assert_problem(caller.delete(f"/api/tokens/{number}"), 404)


class TestTimelines:
    def test_timelines_are_paged(self, caller: Caller, david: Caller, make_user: Callable[..., User]) -> None:
        stranger, now = make_user("stranger"), utcnow()
        for minutes, name in enumerate(["susan", "david", "stranger", "susan", "david"]):
            author = not_none(User.with_username(name))
            db.session.add(Post(body=f"{name} {minutes}", author=author, timestamp=now - timedelta(minutes=minutes)))
        db.session.commit()
        caller.put("/api/users/me/following/david")

        def bodies(path: str) -> list[list[str]]:
            return [[post["body"] for post in page] for page in all_of(caller, path)]

        assert bodies("/api/timelines/home?limit=2") == [["susan 0", "david 1"], ["susan 3", "david 4"]]
        assert bodies("/api/timelines/explore?limit=4") == [
            ["susan 0", "david 1", "stranger 2", "susan 3"],
            ["david 4"],
        ]
        assert bodies(f"/api/users/{stranger.username}/posts") == [["stranger 2"]]
        assert PostPageSchema().validate(caller.get("/api/timelines/home").get_json()) == {}
        assert_problem(caller.get("/api/users/unknown/posts"), 404)


@pytest.mark.parametrize("database", ["sqlite"])
class TestHeaders:
    def test_unchanged_response_is_304(self, caller: Caller) -> None:
        first = caller.get("/api/users/me")
        tag = first.headers["ETag"]

        same = caller.get("/api/users/me", headers={"If-None-Match": f'"other", W/{tag}'})
        caller.patch("/api/users/me", json={"about_me": "changed"})
        changed = caller.get("/api/users/me", headers={"If-None-Match": tag})

        assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", tag)
        assert changed.status_code == 200
        assert changed.headers["ETag"] != tag
        for answer in (first, same):
            assert answer.headers["Cache-Control"] == "private, no-cache"
            assert {"Authorization", "Accept-Language"} <= set(answer.vary)
        assert_problem(caller.get("/api/users/me", headers={"If-Match": '"other"'}), 412)

    def test_head_has_no_body_and_options_lists_methods(self, caller: Caller, client: FlaskClient) -> None:
        read, headed = caller.get("/api/users/me"), caller.head("/api/users/me")

        assert (headed.status_code, headed.data, headed.headers["ETag"]) == (200, b"", read.headers["ETag"])
        options = client.options("/api/users/me")
        assert options.status_code == 200
        assert options.allow.as_set() == {"get", "head", "patch", "options"}

    def test_error_response_is_not_cached(self, caller: Caller) -> None:
        refused = caller.get("/api/users/unknown")

        assert "ETag" not in refused.headers
        assert refused.headers["Cache-Control"] == "no-store"

    def test_rate_limit_headers_are_per_token(
        self, make_app: Callable[..., Flask], make_user: Callable[..., User], redis_server: RedisServer
    ) -> None:
        app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_API="3 per hour")
        susan, david = (caller_for(app, make_user(name)) for name in ("susan", "david"))

        left = [
            susan.get(path).headers["X-RateLimit-Remaining"] for path in ("/api/users", "/api/tasks", "/api/tokens")
        ]
        refused = susan.get("/api/users")

        assert left == ["2", "1", "0"]
        assert_problem(refused, 429)
        assert refused.headers["X-RateLimit-Limit"] == "3"
        assert 0 < int(refused.headers["Retry-After"]) <= 3600
        assert david.get("/api/users").headers["X-RateLimit-Remaining"] == "2"
        with redis_server.stopped():  # each process then counts its own requests
            assert david.get("/api/users").headers["X-RateLimit-Remaining"] == "2"

    def test_anonymous_requests_are_limited_by_address(self, make_app: Callable[..., Flask]) -> None:
        client = make_app(RATELIMIT_ENABLED=True, RATELIMIT_API="1 per hour").test_client()

        assert_problem(client.get("/api/users"), 401)
        assert_problem(client.get("/api/users", headers={"Authorization": "Bearer guessed"}), 429)

    def test_rate_limits_can_be_disabled(self, caller: Caller) -> None:
        assert "X-RateLimit-Limit" not in caller.get("/api/users").headers
