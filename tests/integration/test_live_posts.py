"""Live events of posts: open pages receive new and deleted posts, and each change is published once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts import deletion
from microblog.accounts.models import User
from microblog.accounts.services import follow_user
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.notifications.pubsub import CHANNEL, RESYNC, Hub, user_topic
from microblog.posts.events import ALL_POSTS_TOPIC, MAX_COUNTED, post_events_for_page, post_labels, post_topic
from microblog.posts.models import Post
from microblog.posts.services import create_post, delete_post
from tests.integration.test_posts import count_queries
from tests.support.servers import TIMEOUT, RedisServer

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"])  # the database makes no difference


@pytest.fixture
def others(susan: User) -> list[User]:
    """Miguel, whom Susan follows, and Ben, whom she does not follow."""
    users = [User(username=name, email=f"{name}@example.com", password_hash="") for name in ("miguel", "ben")]
    db.session.add_all(users)
    db.session.commit()
    follow_user(susan, users[0])
    return users


def poll(client: FlaskClient, query: str, since: float) -> list[tuple[str, int]]:
    """Return the name and post id of each post event that a poll with `query` returns."""
    response = client.get(f"/notifications?since={since}&{query}")
    assert response.status_code == 200, response.text
    return [(event["name"], event["data"]["id"]) for event in response.get_json() if event["name"].startswith("post")]


def test_poll_returns_missed_posts_of_timeline(
    susan: User, others: list[User], signed_in: Callable[..., FlaskClient]
) -> None:
    client = signed_in(susan)
    since = utcnow().timestamp()
    own, followed, other = (create_post(author.id, "Hello").id for author in (susan, *others))

    everything = [("post", own), ("post", followed), ("post", other)]
    assert poll(client, "posts=home", since) == everything[:2]
    assert poll(client, "posts=explore", since) == everything
    assert poll(client, "posts=@BEN", since) == everything[2:]
    assert poll(client, "posts=@nobody", since) == []
    assert poll(client, "", since) == []
    assert poll(client, "posts=explore", utcnow().timestamp()) == []


def test_missed_posts_are_capped_and_oldest_first(
    susan: User, others: list[User], signed_in: Callable[..., FlaskClient]
) -> None:
    now = utcnow()
    db.session.add_all(
        Post(body=f"{n}", user_id=others[n % 2].id, timestamp=now + timedelta(seconds=n)) for n in range(300)
    )
    db.session.commit()
    client = signed_in(susan)

    for timeline, count in (("home", 150), ("explore", 300), ("@ben", 150)):
        missed = poll(client, f"posts={timeline}", now.timestamp() - 1)
        assert len(missed) == MAX_COUNTED + 1 < count
        assert missed == sorted(missed)


def test_poll_reports_deleted_posts(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    visible, deleted = (create_post(susan.id, "Hello").id for _ in range(2))
    delete_post(deleted, susan.id)

    shown = f"posts=home&shown={visible},{deleted},9999999999"

    assert poll(signed_in(susan), shown, utcnow().timestamp()) == [("post-deleted", deleted)]


def test_closing_account_removes_posts_from_open_pages(
    app: Flask, susan: User, others: list[User], signed_in: Callable[..., FlaskClient]
) -> None:
    miguel = others[0]
    follow_user(miguel, susan)
    post = create_post(miguel.id, "Hello").id
    hub: Hub = app.extensions["hub"]
    with contextlib.ExitStack() as pages:

        def open_page(topic: str) -> Iterator[Any]:
            page = hub.subscribe([topic])
            pages.callback(page.close)
            return page.read(heartbeat=TIMEOUT, lifetime=2 * TIMEOUT)

        explore = open_page(ALL_POSTS_TOPIC)
        assert next(explore) == RESYNC, "the hub is subscribed"
        home, badges = open_page(post_topic(miguel.id)), open_page(user_topic(susan.id))

        assert deletion.close_account(miguel)

        assert next(explore) == next(home) == RESYNC
        unread = [next(badges) for _ in range(2)]
    assert {(event["subject"], event["data"]["count"]) for event in unread} == {("messages", 0), ("notifications", 0)}
    for timeline_name in ("explore", "@miguel"):
        query = f"posts={timeline_name}&shown={post}"
        assert poll(signed_in(susan), query, utcnow().timestamp()) == [("post-deleted", post)], query


@ON_SQLITE
@pytest.mark.parametrize("query", ["posts=", "posts=all", "posts=home&shown=x", "posts=home&shown=" + "1," * 200 + "1"])
def test_invalid_posts_query_is_refused(susan: User, signed_in: Callable[..., FlaskClient], query: str) -> None:
    client = signed_in(susan)

    for path in ("/notifications", "/notifications/stream"):
        response = client.get(f"{path}?{query}")
        assert response.status_code == 400
        assert "must be" in response.text


@ON_SQLITE
def test_page_subscribes_to_topics_of_its_timeline(app: Flask, susan: User, others: list[User]) -> None:
    miguel, ben = others

    def topics(name: str) -> set[str]:
        source = post_events_for_page(susan.id, {"posts": name})
        assert source is not None
        return set(source.topics)

    assert topics("home") == {post_topic(susan.id), post_topic(miguel.id)}
    assert topics("@ben") == {post_topic(ben.id)}
    assert topics("explore") == {ALL_POSTS_TOPIC}


@ON_SQLITE
def test_post_events_are_published_once_without_body(
    app: Flask, susan: User, signed_in: Callable[..., FlaskClient], redis_server: RedisServer
) -> None:
    hub: Hub = app.extensions["hub"]
    page = hub.subscribe([ALL_POSTS_TOPIC, post_topic(susan.id)])
    events = page.read(heartbeat=TIMEOUT, lifetime=2 * TIMEOUT)
    assert next(events) == RESYNC
    client = signed_in(susan)

    client.post("/", data={"post": "Private text"})
    created: Any = next(events)
    client.post(f"/post/{created['data']['id']}/delete")
    deleted: Any = next(events)
    redis_server.client.publish(redis_server.key(CHANNEL), '{"topics": ["posts"], "event": {"name": "last"}}')

    assert (created["name"], deleted["name"]) == ("post", "post-deleted")
    assert created["data"] == deleted["data"] == {"id": int(created["subject"]), "author": susan.id}
    assert next(events) == {"name": "last"}, "an event was published twice"
    page.close()


def test_home_page_query_count_is_independent_of_followees(
    susan: User, others: list[User], signed_in: Callable[..., FlaskClient]
) -> None:
    client = signed_in(susan)
    pages = ("/", "/notifications?since=0&posts=home&shown=1,2,3")
    create_post(others[0].id, "Hello")
    few = [count_queries(client, path) for path in pages]
    more = [User(username=f"user{n}", email=f"user{n}@example.com", password_hash="") for n in range(20)]
    db.session.add_all(more)
    db.session.commit()
    for user in more:
        follow_user(susan, user)
        create_post(user.id, "Hello")

    assert [count_queries(client, path) for path in pages] == few


@ON_SQLITE
def test_post_labels_cover_every_plural_form(app: Flask) -> None:
    with app.test_request_context():
        assert post_labels() == {
            "one": "{n} new post",
            "other": "{n} new posts",
            "most": "More than 100 new posts",
        }
