"""Posts that are deleted where they stand: which goes, where the focus is then, and what else is going on meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import APIResponse, BrowserContext, Locator, Page, Route, expect

from microblog.accounts.services import follow_user
from microblog.posts.services import delete_post
from tests.browser.site import PATIENCE, Site, until_held
from tests.browser.test_timeline import agree, ask_to_delete, delete, new_posts, signed_in_page, write


def post(page: Page, text: str) -> Locator:
    return page.locator("#timeline .post", has_text=text)


def test_the_focus_goes_on_to_the_next_post_or_back_to_the_link(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
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
def test_an_answer_that_comes_late_is_about_the_post_that_was_asked_for(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    page = signed_in_page(site, site.make_user(posts=3), open_browser)
    held: list[Route] = []
    page.route("**/delete", lambda route: held.append(route) if route.request.method == "POST" else route.continue_())
    ask_to_delete(page, "number 2")
    button = page.get_by_role("dialog").get_by_role("button", name="Delete")

    with page.expect_request(lambda request: request.method == "POST"):
        button.click()
    button.click()  # too much
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
def test_somebody_elses_deletion_leaves_the_hands_of_a_reader_where_they_are(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    writer, reader = site.make_user(posts=1), site.make_user()
    follow_user(reader, writer)
    hers, his = (signed_in_page(site, user, open_browser) for user in (writer, reader))
    field = his.get_by_label("Say something")
    field.fill("Half a thought")

    delete(hers, "number 0")

    expect(his.get_by_text("Nothing here yet.")).to_be_visible()
    expect(field).to_be_focused()
    expect(field).to_have_value("Half a thought")


@pytest.mark.exhaustive
def test_a_post_that_is_deleted_while_new_ones_are_fetched_stays_away(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    writer = site.make_user(posts=1)
    hers, hers_too = (signed_in_page(site, writer, open_browser) for _ in range(2))
    write(hers, "First")
    write(hers, "Second")
    expect(new_posts(hers_too)).to_have_text("2 new posts")
    held: list[tuple[Route, APIResponse]] = []
    hers_too.route(f"{site.url}/", lambda route: held.append((route, route.fetch(timeout=PATIENCE))))
    new_posts(hers_too).click()
    expect(new_posts(hers_too)).to_have_attribute("aria-busy", "true")
    until_held(hers_too, held)

    delete(hers, "First")
    expect(new_posts(hers_too)).to_have_text("1 new post")
    [(route, answer)] = held
    route.fulfill(response=answer)

    expect(hers_too.locator(".post-body")).to_have_text(["Second", "Thought number 0"])
    expect(hers_too.locator("#timeline")).to_be_focused()


@pytest.mark.exhaustive
def test_a_stream_that_was_cut_comes_back_for_what_the_page_shows_by_then(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    writer = site.make_user(posts=1)
    hers, hers_too = (signed_in_page(site, writer, open_browser) for _ in range(2))
    write(hers, "Here today")
    new_posts(hers_too).click()
    article = post(hers_too, "Here today")
    post_id = article.get_attribute("data-post")
    hers.close()
    hers_too.route("**/notifications?*", lambda route: route.abort())  # the stream alone

    site.web.kill()
    delete_post(int(post_id or 0), writer.id)
    site.web.start()

    expect(article).to_have_count(0)


@pytest.mark.exhaustive
def test_a_dialog_that_is_open_is_not_taken_for_another(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
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
    with page.expect_response("**/delete") as answer:
        held[1].continue_()
    answer.value.finished()
    agree(page)

    expect(post(page, "number 1")).to_have_count(0)
    expect(post(page, "number 0")).to_have_count(1)


@pytest.mark.exhaustive
def test_what_is_not_answered_is_said_and_can_be_done_again(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    writer = site.make_user(posts=2)
    hers, hers_too = (signed_in_page(site, writer, open_browser) for _ in range(2))
    said = hers_too.get_by_role("status").filter(has_text="The server did not answer. Try again.")
    write(hers, "News")
    expect(new_posts(hers_too)).to_have_text("1 new post")

    hers_too.route(f"{site.url}/", lambda route: route.abort())
    new_posts(hers_too).press("Enter")
    expect(said).to_be_visible()
    expect(new_posts(hers_too)).to_be_focused()
    hers_too.unroute(f"{site.url}/")
    new_posts(hers_too).press("Enter")
    expect(post(hers_too, "News")).to_be_visible()
    expect(said).to_have_count(0)

    held: list[Route] = []
    hers_too.route(
        "**/delete", lambda route: held.append(route) if route.request.method == "POST" else route.continue_()
    )
    ask_to_delete(hers_too, "number 1")
    with hers_too.expect_request(lambda request: request.method == "POST"):
        hers_too.get_by_role("dialog").get_by_role("button", name="Delete").click()
    hers_too.keyboard.press("Escape")
    expect(hers_too.get_by_role("dialog")).to_be_hidden()
    until_held(hers_too, held)
    held[0].abort()
    expect(said).to_be_visible()
    expect(post(hers_too, "number 1")).to_have_count(1)
