"""Search: queries, results, ranking and markup, which are the same on both databases."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.imports.importer import store_posts
from microblog.imports.parsers import ParsedPost
from microblog.posts.models import Post
from microblog.search import index
from microblog.search.tasks import index_posts
from tests.support.api import caller_for
from tests.support.factories import BEGINNING
from tests.support.imports import store

pytestmark = pytest.mark.both_databases

POSTS = {
    "creme": "Crème brûlée is easier than it sounds.",
    "bread": "The bakery sells yesterday's bread at half the price.",
    "breadth": "Breadth first, depth later.",
    "bike": "You can cycle to the lake 🚲❤️ and be back before breakfast",
    "night": "the night train is slower, and worth it",
    "train": "I train at night",
    "address": "Write to susan.b@example.com about C++ & well-known bugs #flask",
    "korean": "오늘은 한국어를 공부합니다",
    "chinese": "我爱北京天安门",
    "japanese": "東京タワーでｺｰﾋｰを飲む",
    "russian": "Ёлка всё ещё стоит, мой дорогой",
    "german": "Die Straße ist naß",
    "fullwidth": "Ｈｅｌｌｏ　ｗｏｒｌｄ",
    "hindi": "हिन्दी में लिखना",
    "thai": "ฉันกินน้ำตาลที่กรุงเทพ",
    "lao": "ພາສາລາວງ່າຍ",
    "khmer": "ខ្ញុំ\u200bស្រឡាញ់\u200bភ្នំពេញ",
    "burmese": "မြန်မာစာ",
    "arabic": "كَتَبَ أحمد إلى القـــاهرة\u200f",
    "hebrew": "שָׁלוֹם עולם",
    "markup": "<b>bold</b> & 'quoted' \"words\"",
}
# Queries, and the names of the posts that match, in any order.
FOUND = {
    "creme": "creme",
    "CRÈME": "creme",
    "cre\u0300me Brulee": "creme",
    "crème bread": "",
    "bread": "bread breadth",
    '"bread"': "bread",
    "bread price": "bread",
    "bread pric": "bread",
    "brea price": "",
    "br": "",
    '"night train"': "night",
    "“night train”": "night",
    '"train night"': "",
    "train night": "night train",
    '"night': "night train",
    "yesterday's": "bread",
    "well-known": "address",
    "-known": "address",
    "susan.b@example.com": "address",
    "example.net": "",
    "#flask": "address",
    "c++": "address",
    "flask*": "address",
    "NEAR(night train)": "",
    "night AND train": "night",
    "night OR train": "",
    "NOT night": "",
    "terms:night": "",
    "^night": "night train",
    "🚲": "bike",
    "❤": "bike",
    "한국": "korean",
    "국어": "korean",
    "한국어": "korean",
    "한": "korean",
    "다": "korean",
    "한국어 공부": "korean",
    '"한국어를 공부"': "korean",
    '"공부 한국어"': "",
    "한어": "",
    "北京": "chinese",
    "京": "chinese japanese",
    "我爱北京天安门": "chinese",
    "京北": "",
    "タワー": "japanese",
    "コーヒー": "japanese",
    "東": "japanese",
    "елка": "russian",
    "ЁЛКА ВСЕ": "russian",
    "мои": "",
    "дорог": "russian",
    "strasse": "german",
    "NASS": "german",
    "hello": "fullwidth",
    "हिन्दी": "hindi",
    "हिन": "hindi",
    "น้ำตาล": "thai",
    "กรุงเทพ": "thai",
    "กินที่": "",
    "ก": "thai",
    "ລາວ": "lao",
    "ស្រឡាញ់": "khmer",
    "ស្រឡាញ់ភ្នំពេញ": "khmer",
    "မာစာ": "burmese",
    "كتب احمد": "arabic",
    "الي": "arabic",
    '"آحمد إلى القاهرة"': "arabic",
    "שלום": "hebrew",
    "bold": "markup",
    "<b>": "address markup",
    "'quoted'": "markup",
    "' OR 1=1 --": "",
    "nothing\\": "",
}
NO_WORD = ("?!", '"', '""', "*", "-", "--", "' '", "(", "%_", "\\", "…")


def write(author: User, *bodies: str) -> list[int]:
    """Create posts an hour apart, the newest last; return their ids."""
    first = db.session.scalar(sa.select(sa.func.count()).select_from(Post)) or 0
    posts = [
        Post(body=body, timestamp=BEGINNING + timedelta(hours=hour), user_id=author.id)
        for hour, body in enumerate(bodies, first)
    ]
    db.session.add_all(posts)
    db.session.commit()
    return [post.id for post in posts]


def import_old_posts(user: User, *bodies: str) -> None:
    """Import posts of the previous year, the newest last."""
    drafts = [ParsedPost(body, BEGINNING - timedelta(days=365 - day)) for day, body in enumerate(bodies)]
    store_posts(store(user, b"").id, user.id, [(draft, 1) for draft in drafts])


def search(browser: FlaskClient, text: str) -> list[str]:
    """Return the bodies of the posts on the first page of results, without the marks."""
    page = browser.get("/search", query_string={"q": text})
    assert page.status_code == 200, text
    return [html.unescape(re.sub("</?mark>", "", body)) for body in bodies_in(page.text)]


def bodies_in(page: str) -> list[str]:
    return re.findall(r'<p dir="auto" class="post-body"[^>]*>(.*?)</p>', page, re.DOTALL)


def link(page: str, label: str) -> str:
    (href,) = re.findall(rf'rel="{label}" href="([^"]+)"', page)
    return html.unescape(href)


def test_queries_find_expected_posts(browser: FlaskClient, susan: User) -> None:
    write(susan, *POSTS.values())
    names = {body: name for name, body in POSTS.items()}

    results = {query: " ".join(sorted(names[body] for body in search(browser, query))) for query in FOUND}

    assert results == FOUND


def test_empty_and_invalid_queries_show_reason(browser: FlaskClient, susan: User) -> None:
    write(susan, *POSTS.values())

    for query in NO_WORD:
        page = browser.get("/search", query_string={"q": query})
        assert (page.status_code, "There is no word in this" in page.text) == (200, True), query
    assert "Type words" in browser.get("/search").text
    assert "Type words" in browser.get("/search?q=+").text
    assert "No post has this" in browser.get("/search?q=nobody").text
    for query, reason in (("a\x00b", "cannot be kept"), ("x" * 141, "at most 140 characters")):
        page = browser.get("/search", query_string={"q": query})
        assert (page.status_code, reason in page.text) == (422, True), query
    assert browser.get("/search?q=%ff%fe").status_code == 200
    for key in ("before=nonsense", "after=1_2", "before=1_2_3&after=1_2_3", "before=999_999999999999999999_9"):
        assert browser.get(f"/search?q=night&{key}").status_code == (200 if "999" in key else 400)


def test_matches_are_marked_and_text_is_escaped(browser: FlaskClient, susan: User) -> None:
    write(susan, *POSTS.values())

    marked = {
        query: bodies_in(browser.get("/search", query_string={"q": query}).text)[0]
        for query in ("creme", "breakf", '"night train"', "국어", "bold words", "straSSe", "コーヒー", "น้ำ")
    }

    assert marked == {
        "creme": "<mark>Crème</mark> brûlée is easier than it sounds.",
        "breakf": "You can cycle to the lake 🚲❤️ and be back before <mark>breakfast</mark>",
        '"night train"': "the <mark>night train</mark> is slower, and worth it",
        "국어": "오늘은 한<mark>국어</mark>를 공부합니다",
        "bold words": "&lt;b&gt;<mark>bold</mark>&lt;/b&gt; &amp; &#39;quoted&#39; &#34;<mark>words</mark>&#34;",
        "straSSe": "Die <mark>Straße</mark> ist naß",
        "コーヒー": "東京タワーで<mark>ｺｰﾋｰ</mark>を飲む",
        "น้ำ": "ฉันกิน<mark>น้ำ</mark>ตาลที่กรุงเทพ",
    }


def test_word_with_long_expansion_is_found(app: Flask, browser: FlaskClient, susan: User) -> None:
    longest, shorter, surrounded = "ﷺ" * 140, "ﷺ" * 3, f"a {'ﷺ' * 130} b"

    assert browser.post("/", data={"post": longest}).status_code == 302
    assert caller_for(app, susan).post("/api/posts", json={"body": surrounded}).status_code == 201
    import_old_posts(susan, shorter)

    assert search(browser, longest) == [longest, surrounded]
    assert search(browser, shorter)[0] == shorter
    marked = bodies_in(browser.get("/search", query_string={"q": longest}).text)
    assert marked == [f"<mark>{longest}</mark>", f"a <mark>{'ﷺ' * 130}</mark> b"]
    assert index.check() == index.IndexState(posts=3, missing=0, wrong=0, whole=True)


def test_results_are_ranked_by_relevance(browser: FlaskClient, susan: User) -> None:
    best_last = [
        "carpets for sale here",
        "the car that I saw was far too red for a car of his",
        "a car, and it is red",
        "the red car was mine yesterday evening",
        "my car is red",
        "my red car",
        "Red: car!",
    ]
    write(susan, *best_last)

    assert search(browser, "red car") == [
        "Red: car!",
        "my red car",
        "the red car was mine yesterday evening",
        "my car is red",
        "a car, and it is red",
        "the car that I saw was far too red for a car of his",
    ]
    assert search(browser, "car")[-1] == "carpets for sale here"


def test_equal_results_are_paged_newest_first(app: Flask, browser: FlaskClient, susan: User) -> None:
    app.config["POSTS_PER_PAGE"] = 10
    write(susan, *(f"rain {n}." for n in range(25)))

    first = browser.get("/search?q=rain").text
    second = browser.get(link(first, "next")).text
    write(susan, "rain now", "rain again")  # new posts do not shift the pages
    third = browser.get(link(second, "next")).text

    pages = [[re.sub("</?mark>", "", body) for body in bodies_in(page)] for page in (first, second, third)]
    assert [body for page in pages for body in page] == [f"rain {n}." for n in reversed(range(25))]
    assert 'rel="next"' not in third
    assert 'rel="prev"' not in first
    previous = browser.get(link(third, "prev")).text
    assert bodies_in(previous) == bodies_in(second)


def test_candidates_are_capped_with_notice(browser: FlaskClient, susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microblog.search.find.MAX_CANDIDATES", 5)
    write(susan, *(f"rain {n}" for n in range(8)))

    page = browser.get("/search?q=rain").text

    assert len(bodies_in(page)) == 5
    assert "were looked at" in page
    assert "were looked at" not in browser.get("/search?q=rain+7").text


def test_imported_posts_do_not_displace_local_posts(
    browser: FlaskClient, susan: User, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microblog.search.find.MAX_CANDIDATES", 5)
    collector = make_user("collector")
    import_old_posts(collector, *(f"rain {n} old" for n in range(4)))
    write(susan, "rain 0 new", "rain 1 new")
    import_old_posts(collector, *(f"rain {n} old" for n in range(4, 8)))
    write(susan, "rain 2 new")

    assert sorted(search(browser, "rain")) == ["rain 0 new", "rain 1 new", "rain 2 new", "rain 6 old", "rain 7 old"]
    assert search(browser, "rain 3") == ["rain 3 old"]
    assert index.check() == index.IndexState(posts=11, missing=0, wrong=0, whole=True)


def test_index_follows_imported_posts(browser: FlaskClient, susan: User) -> None:
    import_old_posts(susan, "old plums", "old pears")
    plums, pears = db.session.scalars(sa.select(Post).order_by(Post.id))
    plums.body = "old grapes"
    db.session.delete(pears)
    db.session.commit()

    assert [len(search(browser, query)) for query in ("plums", "grapes", "pears")] == [0, 1, 0]
    assert index.check() == index.IndexState(posts=1, missing=0, wrong=0, whole=True)


def test_posts_of_deleted_user_are_no_candidates(
    browser: FlaskClient, susan: User, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("microblog.search.find.MAX_CANDIDATES", 5)
    deleted_user = make_user("leaving")
    write(susan, "rain in May")
    write(deleted_user, *(f"rain {n}" for n in range(8)))
    deleted_user.deleted_at = BEGINNING
    db.session.commit()

    page = browser.get("/search?q=rain").text

    assert len(bodies_in(page)) == 1
    assert "were looked at" not in page


def test_index_follows_inserts_updates_and_deletes(
    browser: FlaskClient, susan: User, make_user: Callable[..., User]
) -> None:
    first, second = write(susan, "apples", "pears")
    db.session.execute(sa.insert(Post), [{"body": f"plums {n}", "user_id": susan.id} for n in range(2)])
    other = make_user("other")
    write(other, "cherries")
    assert [len(search(browser, query)) for query in ("apples", "pears", "plums", "cherries")] == [1, 1, 2, 1]

    db.session.get_one(Post, first).body = "grapes"
    db.session.delete(db.session.get_one(Post, second))
    db.session.execute(sa.delete(User).where(User.id == other.id))
    db.session.commit()

    assert [len(search(browser, query)) for query in ("apples", "grapes", "pears", "cherries")] == [0, 1, 0, 0]
    assert index.check() == index.IndexState(posts=3, missing=0, wrong=0, whole=True)


def test_index_task_adds_missing_posts(browser: FlaskClient, susan: User) -> None:
    db.session.execute(
        sa.text("INSERT INTO post (body, timestamp, user_id) VALUES ('Quinces', '2026-01-01 12:00:00+00:00', :author)"),
        {"author": susan.id},
    )
    db.session.commit()
    assert search(browser, "quinces") == []
    assert index.check().missing == 1

    index_posts()

    assert search(browser, "quinces") == ["Quinces"]
    assert index.check().consistent


def test_search_requires_sign_in(client: FlaskClient) -> None:
    assert client.get("/search?q=x").headers["Location"].startswith("/auth/login")
