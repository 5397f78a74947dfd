"""Following: the home timeline, the lists of followers and the profile."""

from __future__ import annotations

import random
import re
from datetime import timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog import pagination
from microblog.accounts.models import Follow, User
from microblog.accounts.services import UserUnavailable, follow_user, is_following
from microblog.extensions import db
from microblog.posts.models import Post
from microblog.posts.queries import home_posts, home_timeline
from tests.support.databases import recorded_statements
from tests.support.factories import BEGINNING

pytestmark = pytest.mark.both_databases


def add_users(count: int) -> list[User]:
    users = [User(username=f"user{n}", email=f"user{n}@example.com", password_hash="") for n in range(count)]
    db.session.add_all(users)
    db.session.commit()
    return users


def write(author: User, *hours: int) -> None:
    db.session.add_all(
        Post(body=f"{author.username} {hour}", timestamp=BEGINNING + timedelta(hours=hour), user_id=author.id)
        for hour in hours
    )
    db.session.commit()


def shown(page: str) -> list[str]:
    return re.findall(r'<p dir="auto" class="post-body">(.*?)</p>', page, re.DOTALL)


def follows(follower: User, followed: User) -> bool:
    db.session.expire_all()
    return is_following(follower, followed)


def test_home_page_has_own_and_followed_posts(browser: FlaskClient, susan: User, miguel: User) -> None:
    [stranger] = add_users(1)
    for author, hour in ((susan, 1), (miguel, 2), (stranger, 3)):
        write(author, hour)
    assert shown(browser.get("/").text) == ["susan 1"]

    browser.post("/follow/miguel")
    assert shown(browser.get("/").text) == ["miguel 2", "susan 1"]

    browser.post("/unfollow/MIGUEL")
    assert shown(browser.get("/").text) == ["susan 1"]
    assert shown(browser.get("/explore").text) == ["user0 3", "miguel 2", "susan 1"]


@pytest.mark.parametrize("seed", range(4))
def test_home_pages_equal_query_of_all_posts(app: Flask, seed: int) -> None:
    app.config["POSTS_PER_PAGE"] = 5
    rng = random.Random(seed)
    reader, *others = add_users(8)
    for other in others[:5]:
        follow_user(reader, other)
    for author in (reader, *others):  # some have no posts, some fill whole pages, and many posts have the same time
        write(author, *(rng.randrange(40) for _ in range(rng.choice([0, 1, 4, 30]))))
    authors = [reader.id, *(other.id for other in others[:5])]
    newest_first = sa.select(Post.id).where(Post.user_id.in_(authors)).order_by(Post.timestamp.desc(), Post.id.desc())
    expected = list(db.session.scalars(newest_first))

    page = home_timeline(reader)
    down = [post.id for post in page.items]
    while page.next:
        page = home_timeline(reader, pagination.PageRequest(before=page.next))
        down += [post.id for post in page.items]
    up = [post.id for post in page.items]
    while page.previous:
        page = home_timeline(reader, pagination.PageRequest(after=page.previous))
        up = [post.id for post in page.items if post.id not in up] + up

    assert down == expected
    assert up == expected


def test_home_query_reads_one_page_per_author(app: Flask) -> None:
    reader, author = add_users(2)
    follow_user(reader, author)
    write(author, *[1] * 50)
    write(reader, *[1] * 50)
    may_be_shown = home_posts(reader.id)
    middle = db.session.scalars(sa.select(Post).order_by(Post.id).offset(50).limit(1)).one()
    edge = sa.tuple_(sa.literal(middle.timestamp, Post.timestamp.type), sa.literal(middle.id))

    for key, upward in ((None, False), (edge, False), (edge, True)):
        query = may_be_shown(key, upward, 5)
        candidates = pagination.after_key(query, (Post.timestamp, Post.id), key, upward)
        assert 5 <= len(db.session.scalars(candidates).all()) <= 10


def test_home_query_skips_posts_of_other_authors(app: Flask, database: str) -> None:
    reader, author, stranger = add_users(3)
    follow_user(reader, author)
    write(author, *range(30))
    write(stranger, *range(30, 3000))
    if database == "postgresql":
        db.session.execute(sa.text("ANALYZE"))

    with recorded_statements() as statements:
        home_timeline(reader)

    plan = statements[-1].plan(analyze=True)
    assert "ix_post_user_id_timestamp_id" in plan
    assert "SCAN post" not in plan
    assert max(map(int, re.findall(r"Rows Removed by \w+: (\d+)", plan)), default=0) < 100, plan


def test_follow_is_shown_and_counted_once(browser: FlaskClient, susan: User, miguel: User) -> None:
    profile = browser.get("/user/miguel").text
    assert "0 followers" in profile
    assert 'action="/follow/miguel"' in profile

    answers = [browser.post("/follow/miguel", follow_redirects=True).text for _ in range(2)]

    assert "You follow miguel now." in answers[0]
    assert "You follow miguel already." in answers[1]
    assert "1 follower<" in answers[1]
    assert 'action="/unfollow/miguel"' in answers[1]
    assert "1 following" in browser.get("/user/susan").text
    assert "susan" in browser.get("/user/miguel/followers").text
    assert "miguel" in browser.get("/user/susan/following").text


def test_follow_refused_for_self_and_unknown_user(browser: FlaskClient, susan: User) -> None:
    assert "cannot follow yourself" in browser.post("/follow/susan", follow_redirects=True).text
    assert browser.post("/follow/nobody").status_code == 404
    assert browser.post("/unfollow/nobody").status_code == 404
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Follow)) == 0
    with pytest.raises(ValueError, match="users cannot follow themselves"):
        follow_user(susan, susan)


def test_follow_of_deleted_user_is_refused(susan: User, miguel: User) -> None:
    deleted = User(id=miguel.id, username="miguel")
    db.session.execute(sa.delete(User).where(User.id == miguel.id))
    db.session.commit()

    with pytest.raises(UserUnavailable):
        follow_user(susan, deleted)


def test_follow_requires_post_and_login(browser: FlaskClient, client: FlaskClient, susan: User, miguel: User) -> None:
    assert browser.get("/follow/miguel").status_code == 405
    assert client.post("/follow/miguel").status_code == 302
    assert not follows(susan, miguel)


def test_unfollow_without_follow_is_reported(browser: FlaskClient, miguel: User) -> None:
    assert "You do not follow miguel." in browser.post("/unfollow/miguel", follow_redirects=True).text


def test_follower_list_is_paged_newest_first(app: Flask, browser: FlaskClient, susan: User) -> None:
    app.config["POSTS_PER_PAGE"] = 2
    fans = add_users(3)
    for day, fan in enumerate(fans):
        db.session.add(Follow(follower_id=fan.id, followed_id=susan.id, created_at=BEGINNING + timedelta(days=day)))
    db.session.commit()

    first = browser.get("/user/susan/followers").text
    [older] = re.findall(r'rel="next" href="([^"]+)"', first)
    second = browser.get(older.replace("&amp;", "&")).text

    assert re.findall(r">(user\d)</a>", first) == ["user2", "user1"]
    assert re.findall(r">(user\d)</a>", second) == ["user0"]


def test_edited_profile_is_shown(browser: FlaskClient, susan: User) -> None:
    saved = browser.post("/edit_profile", data={"username": "Susan", "about_me": " I <b>row</b>.\r\n "})

    assert saved.headers["Location"] == "/user/Susan"
    page = browser.get("/user/susan").text
    assert "<h1>Susan</h1>" in page
    assert "I &lt;b&gt;row&lt;/b&gt;.</p>" in page


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"username": "miguel", "about_me": ""}, "This username is taken."),
        ({"username": "x", "about_me": ""}, "A username has 3 to 64 characters."),
        ({"username": "susan", "about_me": "x" * 281}, "This has at most 280 characters."),
    ],
)
def test_invalid_profile_is_refused(
    browser: FlaskClient, susan: User, miguel: User, fields: dict[str, str], sentence: str
) -> None:
    answer = browser.post("/edit_profile", data=fields)

    assert answer.status_code == 422
    assert sentence in answer.text
    db.session.expire_all()
    assert (susan.username, susan.about_me) == ("susan", "")
