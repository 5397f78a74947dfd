"""The profile as users see it: last seen, avatar and card."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from microblog.accounts import last_seen
from microblog.accounts.avatars import CELLS, COLOURS, SIZE, avatar_of
from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.messages.services import send_message
from microblog.posts.services import create_post


def last_seen_of(user: User) -> datetime | None:
    db.session.refresh(user)
    return user.last_seen_at


def fetch(browser: FlaskClient, path: str, **headers: str) -> str:
    """Read a response to its end, as a browser does; return the text."""
    response = browser.get(path, headers=headers, buffered=True)
    text: str = response.text
    response.close()
    return text


@pytest.mark.both_databases
def test_navigation_updates_last_seen(browser: FlaskClient, susan: User) -> None:
    background = {"Sec-Fetch-Mode": "cors"}
    fetch(browser, "/notifications?since=0")
    fetch(browser, "/notifications/nothing")
    fetch(browser, "/", **background)
    assert last_seen_of(susan) is None
    assert "Last seen" not in fetch(browser, "/user/susan", **background)

    fetch(browser, "/", **{"Sec-Fetch-Mode": "navigate"})

    seen_at = last_seen_of(susan)
    assert seen_at is not None
    assert utcnow() - seen_at < timedelta(minutes=5)
    assert f'Last seen <time datetime="{seen_at:%Y-%m-%dT%H:%M:%S.%fZ}"' in fetch(browser, "/user/susan", **background)


@pytest.mark.both_databases
def test_last_seen_is_recorded_once_a_minute(susan: User) -> None:
    first = utcnow()
    times = [first, first + timedelta(seconds=59), first + timedelta(seconds=60), first + timedelta(seconds=90)]

    recorded = []
    for time in times:
        last_seen.record_last_seen(susan.id, time)
        recorded.append(last_seen_of(susan))

    assert recorded == [first, first, times[2], times[2]]


@pytest.mark.both_databases(each_run=False)
def test_schema_error_at_last_seen_is_logged(susan: User, caplog: pytest.LogCaptureFixture) -> None:
    user_id = susan.id
    db.session.execute(sa.text('ALTER TABLE "user" RENAME COLUMN last_seen_at TO renamed'))
    db.session.commit()

    last_seen.record_last_seen(user_id, utcnow())

    db.session.execute(sa.text('ALTER TABLE "user" RENAME COLUMN renamed TO last_seen_at'))
    db.session.commit()
    assert last_seen_of(susan) is None
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage().endswith(f"this visit of user {user_id} is not recorded")


def test_user_card_as_page_or_fragment(browser: FlaskClient, make_user: Callable[..., User]) -> None:
    miguel = make_user("miguel")
    miguel.about_me = "I <b>row</b>."
    db.session.commit()

    page, card = fetch(browser, "/user/MIGUEL/popup"), fetch(browser, "/user/miguel/popup?part=card")

    assert page.lstrip().startswith("<!doctype html>")
    assert card.strip().startswith("<article")
    for text in (page, card):
        assert "I &lt;b&gt;row&lt;/b&gt;." in text
        assert "0 followers" in text
        assert 'action="/follow/miguel"' in text
    assert "<form" not in fetch(browser, "/user/susan/popup?part=card")
    assert browser.get("/user/nobody/popup").status_code == 404


def test_avatars_are_stable_symmetrical_and_varied() -> None:
    pictures = [avatar_of(user_id) for user_id in range(2000)]
    avatar_of.cache_clear()

    assert [avatar_of(user_id) for user_id in range(2000)] == pictures
    assert {picture.colour for picture in pictures} == set(range(COLOURS))
    assert len(set(pictures)) > 1980
    assert all(cells(picture.path) == {(SIZE - 1 - x, y) for x, y in cells(picture.path)} for picture in pictures)
    assert all(min(CELLS) <= len(cells(picture.path)) <= 2 * max(CELLS) for picture in pictures)


def cells(path: str) -> set[tuple[int, int]]:
    """Return the cells that a path fills."""
    runs = [map(int, run) for run in re.findall(r"M(\d) (\d)h(\d)v1h-\3z", path)]
    return {(x + n, y) for x, y, width in runs for n in range(width)}


@pytest.mark.parametrize("database", ["sqlite"])
def test_user_text_has_direction_and_card_link(
    browser: FlaskClient, susan: User, make_user: Callable[..., User]
) -> None:
    hebrew = "\u05e9\u05dc\u05d5\u05dd"
    dana = make_user("dana")
    dana.about_me = hebrew
    post = create_post(dana.id, hebrew)
    send_message(dana, susan, hebrew)
    send_message(susan, dana, hebrew)

    pages = ("/explore", f"/post/{post.id}", "/user/dana", "/user/dana/popup", "/messages", "/messages/sent")
    for path in (*pages, "/send_message/dana"):
        page = browser.get(path).text
        shown = re.findall(rf"<(\w+)([^>]*)>{hebrew}", page)
        assert [name for name, attributes in shown if 'dir="auto"' not in attributes] == [], path
        assert len(shown) >= 1, path
        assert path == "/user/dana/popup" or 'data-card="/user/dana/popup?part=card"' in page, path
    for path in ("/", "/send_message/dana", "/edit_profile"):
        assert re.search(r'<textarea[^>]* dir="auto"', browser.get(path).text), path
