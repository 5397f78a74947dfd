"""What open pages hear of posts: new ones, and those that are gone; and that each is published once."""

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
from microblog.notifications.pubsub import CHANNEL, RESYNC, Hub, topic_of
from microblog.posts.events import EVERYBODY, MOST, post_events_for_page, post_labels, post_topic
from microblog.posts.models import Post
from microblog.posts.services import create_post, delete_post
from tests.integration.test_posts import count_queries
from tests.support.servers import PATIENCE, RedisServer

LIVES_ON_ONE_DATABASE = pytest.mark.parametrize("database", ["sqlite"])  # its promise has nothing to do with it


@pytest.fixture
def others(susan: User) -> list[User]:
    """Miguel, whom susan follows, and ben, whom she does not."""
    made = [User(username=name, email=f"{name}@example.com", password_hash="") for name in ("miguel", "ben")]
    db.session.add_all(made)
    db.session.commit()
    follow_user(susan, made[0])
    return made


def told(client: FlaskClient, query: str, since: float) -> list[tuple[str, int]]:
    """The events of posts that a page hears of which asks for them."""
    answer = client.get(f"/notifications?since={since}&{query}")
    assert answer.status_code == 200, answer.text
    return [(event["name"], event["data"]["id"]) for event in answer.json if event["name"].startswith("post")]


def test_a_page_hears_of_the_posts_that_its_timeline_missed(
    susan: User, others: list[User], signed_in: Callable[..., FlaskClient]
) -> None:
    client = signed_in(susan)
    before = utcnow().timestamp()
    hers, miguels, bens = (create_post(author.id, "Hello").id for author in (susan, *others))

    everything = [("post", hers), ("post", miguels), ("post", bens)]
    assert told(client, "posts=home", before) == everything[:2]
    assert told(client, "posts=explore", before) == everything
    assert told(client, "posts=@BEN", before) == everything[2:]
    assert told(client, "posts=@nobody", before) == []
    assert told(client, "", before) == []
    assert told(client, "posts=explore", utcnow().timestamp()) == []


def test_what_a_page_missed_is_bounded_and_the_oldest_comes_first(
    susan: User, others: list[User], signed_in: Callable[..., FlaskClient]
) -> None:
    now = utcnow()
    db.session.add_all(
        Post(body=f"{n}", user_id=others[n % 2].id, timestamp=now + timedelta(seconds=n)) for n in range(300)
    )
    db.session.commit()
    client = signed_in(susan)

    for timeline, count in (("home", 150), ("explore", 300), ("@ben", 150)):
        missed = told(client, f"posts={timeline}", now.timestamp() - 1)
        assert len(missed) == MOST + 1 < count
        assert missed == sorted(missed)


def test_a_page_hears_which_of_its_posts_are_gone(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    kept, deleted = (create_post(susan.id, "Hello").id for _ in range(2))
    delete_post(deleted, susan.id)

    shown = f"posts=home&shown={kept},{deleted},9999999999"

    assert told(signed_in(susan), shown, utcnow().timestamp()) == [("post-deleted", deleted)]


def test_what_somebody_wrote_goes_from_open_pages_when_they_close_their_account(
    app: Flask, susan: User, others: list[User], signed_in: Callable[..., FlaskClient]
) -> None:
    miguel = others[0]
    follow_user(miguel, susan)
    post = create_post(miguel.id, "Hello").id
    hub: Hub = app.extensions["hub"]
    with contextlib.ExitStack() as pages:

        def opened(topic: str) -> Iterator[Any]:
            page = hub.join([topic])
            pages.callback(page.close)
            return page.read(heartbeat=PATIENCE, lifetime=2 * PATIENCE)

        explore = opened(EVERYBODY)
        assert next(explore) == RESYNC, "Redis is listened to"
        home, badges = opened(post_topic(miguel.id)), opened(topic_of(susan.id))

        assert deletion.close_account(miguel)

        assert next(explore) == next(home) == RESYNC
        unread = [next(badges) for _ in range(2)]
    assert {(event["subject"], event["data"]["count"]) for event in unread} == {("messages", 0), ("notifications", 0)}
    for timeline_name in ("explore", "@miguel"):
        asked = f"posts={timeline_name}&shown={post}"
        assert told(signed_in(susan), asked, utcnow().timestamp()) == [("post-deleted", post)], asked


@LIVES_ON_ONE_DATABASE
@pytest.mark.parametrize("query", ["posts=", "posts=all", "posts=home&shown=x", "posts=home&shown=" + "1," * 200 + "1"])
def test_a_page_that_asks_for_nonsense_is_told_so(
    susan: User, signed_in: Callable[..., FlaskClient], query: str
) -> None:
    client = signed_in(susan)

    for path in ("/notifications", "/notifications/stream"):
        answer = client.get(f"{path}?{query}")
        assert answer.status_code == 400
        assert "must be" in answer.text


@LIVES_ON_ONE_DATABASE
def test_a_page_listens_to_the_authors_that_it_shows(app: Flask, susan: User, others: list[User]) -> None:
    miguel, ben = others

    def topics(name: str) -> set[str]:
        source = post_events_for_page(susan.id, {"posts": name})
        assert source is not None
        return set(source.topics)

    assert topics("home") == {post_topic(susan.id), post_topic(miguel.id)}
    assert topics("@ben") == {post_topic(ben.id)}
    assert topics("explore") == {EVERYBODY}


@LIVES_ON_ONE_DATABASE
def test_a_post_is_published_once_and_its_end_too_and_neither_says_what_it_said(
    app: Flask, susan: User, signed_in: Callable[..., FlaskClient], redis_server: RedisServer
) -> None:
    hub: Hub = app.extensions["hub"]
    page = hub.join([EVERYBODY, post_topic(susan.id)])
    events = page.read(heartbeat=PATIENCE, lifetime=2 * PATIENCE)
    assert next(events) == RESYNC
    client = signed_in(susan)

    client.post("/", data={"post": "Nobody's business"})
    written: Any = next(events)
    client.post(f"/post/{written['data']['id']}/delete")
    deleted: Any = next(events)
    redis_server.client.publish(CHANNEL, '{"topics": ["posts"], "event": {"name": "last"}}')

    assert (written["name"], deleted["name"]) == ("post", "post-deleted")
    assert written["data"] == deleted["data"] == {"id": int(written["subject"]), "author": susan.id}
    assert next(events) == {"name": "last"}, "told twice"
    page.close()


def test_the_home_page_and_its_stream_cost_the_same_queries_however_many_are_followed(
    app: Flask, susan: User, others: list[User], signed_in: Callable[..., FlaskClient]
) -> None:
    client = signed_in(susan)
    pages = ("/", "/notifications?since=0&posts=home&shown=1,2,3")
    create_post(others[0].id, "Hello")
    few = [count_queries(app, client, path) for path in pages]
    more = [User(username=f"user{n}", email=f"user{n}@example.com", password_hash="") for n in range(20)]
    db.session.add_all(more)
    db.session.commit()
    for user in more:
        follow_user(susan, user)
        create_post(user.id, "Hello")

    assert [count_queries(app, client, path) for path in pages] == few


@LIVES_ON_ONE_DATABASE
def test_the_bar_has_a_text_for_each_plural_of_the_language(app: Flask) -> None:
    with app.test_request_context():
        assert post_labels() == {"one": "{n} new post", "other": "{n} new posts", "most": "More than 100 new posts"}
