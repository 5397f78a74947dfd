"""Deleting posts in place: the right post disappears, the focus is kept, and concurrent changes are handled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import APIResponse, BrowserContext, Locator, Page, Route, expect

from microblog.accounts.services import follow_user
from microblog.posts.services import delete_post
from tests.browser.site import TIMEOUT, Site, until_held
from tests.browser.test_timeline import agree, ask_to_delete, delete, new_posts, signed_in_page, write


def post(page: Page, text: str) -> Locator:
    return page.locator("#timeline .post", has_text=text)


@pytest.mark.exhaustive
def test_focus_moves_to_next_post_or_link(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    page = signed_in_page(site, site.make_user(posts=3), open_browser)
    link = post(page, "number 1").get_by_role("link", name="Delete")

    link.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(link).to_be_focused()

    link.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Delete").press("Enter")
    expect(post(page, "number 1")).to_have_count(0)
    expect(post(page, "number 0").locator(".post-time")).to_be_focused()


@pytest.mark.exhaustive
def test_late_response_deletes_requested_post(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    page = signed_in_page(site, site.make_user(posts=3), open_browser)
    held: list[Route] = []
    page.route("**/delete", lambda route: held.append(route) if route.request.method == "POST" else route.continue_())
    ask_to_delete(page, "number 2")
    button = page.get_by_role("dialog").get_by_role("button", name="Delete")

    with page.expect_request(lambda request: request.method == "POST"):
        button.click()
    button.click()  # a second click
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    ask_to_delete(page, "number 1")
    until_held(page, held)
    held[0].continue_()

    expect(post(page, "number 2")).to_have_count(0)
    expect(page.get_by_role("status").filter(has_text="Your post is deleted.")).to_be_visible()
    expect(page.get_by_role("dialog")).to_contain_text("number 1")
    expect(post(page, "number 1")).to_have_count(1)
    assert len(held) == 1


@pytest.mark.exhaustive
def test_deletion_by_author_keeps_focus_of_reader(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    writer, reader = site.make_user(posts=1), site.make_user()
    follow_user(reader, writer)
    writer_page, reader_page = (signed_in_page(site, user, open_browser) for user in (writer, reader))
    field = reader_page.get_by_label("Say something")
    field.fill("Half a thought")

    delete(writer_page, "number 0")

    expect(reader_page.get_by_text("Nothing here yet.")).to_be_visible()
    expect(field).to_be_focused()
    expect(field).to_have_value("Half a thought")


@pytest.mark.exhaustive
def test_post_deleted_during_fetch_is_not_shown(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    writer = site.make_user(posts=1)
    writer_page, second_page = (signed_in_page(site, writer, open_browser) for _ in range(2))
    write(writer_page, "First")
    write(writer_page, "Second")
    expect(new_posts(second_page)).to_have_text("2 new posts")
    held: list[tuple[Route, APIResponse]] = []
    second_page.route(f"{site.url}/", lambda route: held.append((route, route.fetch(timeout=TIMEOUT))))
    new_posts(second_page).click()
    expect(new_posts(second_page)).to_have_attribute("aria-busy", "true")
    until_held(second_page, held)

    delete(writer_page, "First")
    expect(new_posts(second_page)).to_have_text("1 new post")
    [(route, response)] = held
    route.fulfill(response=response)

    expect(second_page.locator(".post-body")).to_have_text(["Second", "Thought number 0"])
    expect(second_page.locator("#timeline")).to_be_focused()


@pytest.mark.exhaustive
def test_reconnected_stream_covers_shown_posts(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    writer = site.make_user(posts=1)
    writer_page, second_page = (signed_in_page(site, writer, open_browser) for _ in range(2))
    write(writer_page, "Here today")
    new_posts(second_page).click()
    article = post(second_page, "Here today")
    post_id = article.get_attribute("data-post")
    writer_page.close()
    second_page.route("**/notifications?*", lambda route: route.abort())  # only the stream, no polling

    site.web.kill()
    delete_post(int(post_id or 0), writer.id)
    site.web.restart()

    expect(article).to_have_count(0)


@pytest.mark.exhaustive
def test_open_dialog_is_not_replaced(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    page = signed_in_page(site, site.make_user(posts=2), open_browser)
    held: list[Route] = []
    page.route("**/delete", lambda route: held.append(route) if route.request.method == "GET" else route.continue_())
    for n in (1, 0):
        with page.expect_request("**/delete"):
            post(page, f"number {n}").get_by_role("link", name="Delete").click()
    until_held(page, held, 2)

    with page.expect_response("**/delete"):
        held[0].continue_()
    expect(page.get_by_role("dialog")).to_contain_text("number 1")
    with page.expect_response("**/delete") as response:
        held[1].continue_()
    response.value.finished()
    agree(page)

    expect(post(page, "number 1")).to_have_count(0)
    expect(post(page, "number 0")).to_have_count(1)


@pytest.mark.exhaustive
def test_missing_response_is_reported_and_can_be_retried(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    writer = site.make_user(posts=2)
    writer_page, second_page = (signed_in_page(site, writer, open_browser) for _ in range(2))
    error = second_page.get_by_role("status").filter(has_text="The server did not answer. Try again.")
    write(writer_page, "News")
    expect(new_posts(second_page)).to_have_text("1 new post")

    second_page.route(f"{site.url}/", lambda route: route.abort())
    new_posts(second_page).press("Enter")
    expect(error).to_be_visible()
    expect(new_posts(second_page)).to_be_focused()
    second_page.unroute(f"{site.url}/")
    new_posts(second_page).press("Enter")
    expect(post(second_page, "News")).to_be_visible()
    expect(error).to_have_count(0)

    held: list[Route] = []
    second_page.route(
        "**/delete", lambda route: held.append(route) if route.request.method == "POST" else route.continue_()
    )
    ask_to_delete(second_page, "number 1")
    with second_page.expect_request(lambda request: request.method == "POST"):
        second_page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    second_page.keyboard.press("Escape")
    expect(second_page.get_by_role("dialog")).to_be_hidden()
    until_held(second_page, held)
    held[0].abort()
    expect(error).to_be_visible()
    expect(post(second_page, "number 1")).to_have_count(1)
