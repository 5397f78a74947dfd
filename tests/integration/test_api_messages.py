"""The API's search, messages and notifications: responses and access."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from microblog.accounts.models import User
from microblog.api.schemas import MessagePageSchema, MessageSchema, NotificationPageSchema, SearchPageSchema
from microblog.extensions import db
from microblog.messages.models import MAX_MESSAGE
from microblog.posts.models import Post
from microblog.search import query
from tests.support import not_none, pseudolocale
from tests.support.api import Caller, assert_problem, caller_for
from tests.support.clients import sign_in


@pytest.fixture
def miguel(app: Flask, make_user: Callable[..., User]) -> Caller:
    return caller_for(app, make_user("miguel"))


@pytest.fixture
def stranger(app: Flask, make_user: Callable[..., User]) -> Caller:
    return caller_for(app, make_user("stranger"))


def bodies(caller: Caller, path: str) -> list[list[str]]:
    """Return the bodies of the items of each page, beginning with the page at `path`."""
    pages = []
    while path:
        page = caller.get(path).get_json()
        pages.append([item["body"] for item in page["items"]])
        path = page["next"]
    return pages


class TestSearch:
    def test_search_is_paged_in_both_directions(self, caller: Caller) -> None:
        author = not_none(User.with_username("susan"))
        for body in ("Rowing at dawn", "The dawn", "Dawn of rowing dawn", "Something else"):
            db.session.add(Post(body=body, author=author))
            db.session.commit()

        first = caller.get("/api/search", query_string={"q": "DAWN", "limit": 2})
        second = caller.get(first.get_json()["next"])

        assert SearchPageSchema().validate(first.get_json()) == SearchPageSchema().validate(second.get_json()) == {}
        assert [post["body"] for post in first.get_json()["items"]] == ["Dawn of rowing dawn", "The dawn"]
        assert [post["body"] for post in second.get_json()["items"]] == ["Rowing at dawn"]
        assert (second.get_json()["next"], first.get_json()["prev"]) == (None, None)
        assert first.get_json()["truncated"] is False
        assert caller.get(second.get_json()["prev"]).get_json()["items"] == first.get_json()["items"]
        assert bodies(caller, '/api/search?q="the dawn"') == [["The dawn"]]
        assert bodies(caller, "/api/search?q=nowhere") == [[]]

    def test_invalid_search_is_refused(self, caller: Caller) -> None:
        for text in ("", " ", "...", "a\0b", "x" * (query.MAX_QUERY + 1)):
            refused = caller.get("/api/search", query_string={"q": text})
            assert assert_problem(refused, 422)["errors"]["query"]["q"]
        assert_problem(caller.get("/api/search"), 422)
        for key in ("before=1", "before=1_1_1&after=1_1_1", "after=x"):
            assert_problem(caller.get(f"/api/search?q=dawn&{key}"), 400)


class TestMessages:
    def test_message_is_visible_to_sender_and_recipient(self, caller: Caller, miguel: Caller, stranger: Caller) -> None:
        sent = caller.post("/api/messages", json={"to": "MIGUEL", "message": " Hello,\r\nyou \n"})
        path = sent.headers["Location"]

        assert sent.status_code == 201
        assert MessageSchema().validate(sent.get_json()) == {}
        shown = {key: sent.get_json()[key] for key in ("body", "from", "to", "read")}
        assert shown == {"body": "Hello,\nyou", "from": "susan", "to": "miguel", "read": True}
        assert miguel.get(path).get_json() == sent.get_json() | {"read": False}
        assert miguel.get("/api/messages").get_json()["items"] == [sent.get_json() | {"read": False}]
        assert caller.get("/api/messages/sent").get_json()["items"] == [sent.get_json()]
        for path_of_others in ("/api/messages", "/api/messages/sent"):
            assert stranger.get(path_of_others).get_json()["items"] == []
        for request in (stranger.get, stranger.delete):
            assert_problem(request(path), 404)

    def test_message_lists_are_paged(self, caller: Caller, miguel: Caller) -> None:
        for number in range(3):
            caller.post("/api/messages", json={"to": "miguel", "message": str(number)})

        assert bodies(miguel, "/api/messages?limit=2") == [["2", "1"], ["0"]]
        assert bodies(caller, "/api/messages/sent?limit=2") == [["2", "1"], ["0"]]
        assert MessagePageSchema().validate(miguel.get("/api/messages").get_json()) == {}

    def test_only_recipient_marks_message_as_read(self, caller: Caller, miguel: Caller, stranger: Caller) -> None:
        sent = caller.post("/api/messages", json={"to": "miguel", "message": "Hello"}).get_json()

        for other in (caller, stranger):
            assert other.post("/api/messages/read", json={"ids": [sent["id"]]}).status_code == 204
        assert not miguel.get("/api/messages").get_json()["items"][0]["read"]

        assert miguel.post("/api/messages/read", json={"ids": [sent["id"], 2**31 - 1]}).status_code == 204
        assert miguel.get("/api/messages").get_json()["items"][0]["read"]
        assert miguel.get("/api/notifications").get_json()["items"][0]["read"], "the notification is read too"
        for ids in ([], [0], [2**63], ["x"], 1, None):
            assert_problem(miguel.post("/api/messages/read", json={"ids": ids}), 422)

    def test_message_is_deleted_for_one_user_only(self, caller: Caller, miguel: Caller) -> None:
        path = caller.post("/api/messages", json={"to": "miguel", "message": "Hello"}).headers["Location"]

        assert miguel.delete(path).status_code == 204
        assert_problem(miguel.get(path), 404)
        assert_problem(miguel.delete(path), 404)
        assert caller.get(path).status_code == 200
        assert caller.delete(path).status_code == 204
        for number in ("0", str(2**31), str(2**63), "9" * 40, "-1", "x"):
            assert_problem(caller.get(f"/api/messages/{number}"), 404)
            assert_problem(caller.delete(f"/api/messages/{number}"), 404)

    def test_invalid_message_is_422_with_field(self, caller: Caller, miguel: Caller) -> None:
        good = {"to": "miguel", "message": "x" * MAX_MESSAGE + " "}
        for field, value in (
            *(("to", "nobody"), ("to", "susan"), ("to", ""), ("to", "a\0b"), ("to", None), ("to", 7)),
            *(("message", " \n"), ("message", "x" * (MAX_MESSAGE + 1)), ("message", "a\0b"), ("message", ["x"])),
        ):
            refused = caller.post("/api/messages", json=good | {field: value})
            assert list(assert_problem(refused, 422)["errors"]["json"]) == [field]
        assert caller.post("/api/messages", json=good).status_code == 201

    def test_rate_limit_is_shared_with_page(
        self, make_app: Callable[..., Flask], make_user: Callable[..., User]
    ) -> None:
        app = make_app(RATELIMIT_ENABLED=True, RATELIMIT_MESSAGE="2 per hour")
        susan, browser = make_user("susan"), app.test_client()
        make_user("miguel")
        sign_in(browser)
        program = caller_for(app, susan)

        answers = [
            program.post("/api/messages", json={"to": "miguel", "message": "one"}),
            browser.post("/send_message/miguel", data={"message": "two"}),
            browser.post("/send_message/miguel", data={"message": "three"}),
            program.post("/api/messages", json={"to": "miguel", "message": "four"}),
        ]

        assert [answer.status_code for answer in answers] == [201, 302, 429, 429]
        assert program.get("/api/messages/sent").status_code == 200


class TestNotifications:
    def test_notifications_are_unread_until_marked(self, caller: Caller, miguel: Caller) -> None:
        miguel.put("/api/users/me/following/susan")
        for _ in range(2):
            miguel.post("/api/messages", json={"to": "susan", "message": "Hello"})

        answer = caller.get("/api/notifications?limit=1")
        message, follower = answer.get_json()["items"], caller.get(answer.get_json()["next"]).get_json()["items"]

        assert NotificationPageSchema().validate(answer.get_json()) == {}
        summaries = [[row[key] for key in ("kind", "link", "read")] for row in (*message, *follower)]
        assert summaries == [["message", "/send_message/miguel", False], ["follower", "/user/miguel", False]]
        miguel_id = str(not_none(User.with_username("miguel")).id)
        assert [row["subject"] for row in (*message, *follower)] == [miguel_id, miguel_id]
        sentences = [row["sentence"] for row in (*message, *follower)]
        assert sentences == ["miguel wrote you 2 new messages.", "miguel began to follow you."]
        assert caller.post("/api/notifications/read", json={"ids": [follower[0]["id"]]}).status_code == 204
        assert [row["read"] for row in caller.get("/api/notifications").get_json()["items"]] == [False, True]
        assert caller.post("/api/notifications/read").status_code == 204
        assert [row["read"] for row in caller.get("/api/notifications").get_json()["items"]] == [True, True]

    @pytest.mark.parametrize("database", ["sqlite"])
    @pytest.mark.exhaustive
    def test_sentence_is_in_language_of_user(
        self, make_app: Callable[..., Flask], make_user: Callable[..., User], tmp_path: Path
    ) -> None:
        pseudolocale.write_catalog(tmp_path / "translations")
        translated = {"BABEL_TRANSLATION_DIRECTORIES": str(tmp_path / "translations")}
        app = make_app(LANGUAGES=["en", pseudolocale.LANGUAGE], **translated)
        reader = make_user("susan")
        reader.locale = pseudolocale.LANGUAGE
        susan, miguel = (caller_for(app, user) for user in (reader, make_user("miguel")))
        miguel.put("/api/users/me/following/susan")

        items = susan.get("/api/notifications", headers={"Accept-Language": "en"}).get_json()["items"]

        assert [row["sentence"] for row in items] == ["⟦miguel began to follow you.⟧"]

    def test_users_read_only_their_own_notifications(self, caller: Caller, miguel: Caller) -> None:
        miguel.put("/api/users/me/following/susan")
        own = caller.get("/api/notifications").get_json()["items"]

        assert miguel.get("/api/notifications").get_json()["items"] == []
        assert miguel.post("/api/notifications/read", json={"ids": [own[0]["id"]]}).status_code == 204
        assert miguel.post("/api/notifications/read").status_code == 204
        assert caller.get("/api/notifications").get_json()["items"] == own
        assert_problem(miguel.post("/api/notifications/read", json={"ids": []}), 422)


def test_post_has_detected_language(caller: Caller) -> None:
    written = caller.post("/api/posts", json={"body": "The weather is very nice today, is it not?"})

    assert written.get_json()["language"] == "en"
    assert caller.get("/api/timelines/home").get_json()["items"] == [written.get_json()]
    assert caller.post("/api/posts", json={"body": "!"}).get_json()["language"] is None
