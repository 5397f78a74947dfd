"""Two readers at once: what one writes the other is told of; names open cards."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import BrowserContext, Page, expect

from microblog.accounts import followers
from microblog.accounts.models import User
from tests.browser.site import Site
from tests.browser.test_live import expect_same_page, mark


def write(page: Page, text: str) -> None:
    page.get_by_label("Say something").fill(text)
    page.get_by_role("button", name="Post", exact=True).click()
    expect(page.locator(".post-body").first).to_have_text(text)


def delete(page: Page, text: str) -> None:
    page.locator(".post", has_text=text).get_by_role("link", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("status").filter(has_text="Your post is deleted.")).to_be_visible()


def signed_in_page(site: Site, user: User, open_browser: Callable[..., BrowserContext]) -> Page:
    page = open_browser().new_page()
    with page.expect_response("**/notifications/stream*"):
        site.sign_in(page, user)
    return page


def test_a_post_is_told_of_shown_when_wanted_and_gone_when_deleted(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    writer, reader = site.make_user(), site.make_user(posts=1)
    followers.follow(reader, writer)
    hers, his = (signed_in_page(site, user, open_browser) for user in (writer, reader))
    his.get_by_label("Say something").fill("Half a thought")
    mark(his)
    bar = his.locator(".new-posts button")

    write(hers, "First")
    expect(bar).to_have_text("1 new post")
    write(hers, "Second")
    expect(bar).to_have_text("2 new posts")
    expect(hers.locator(".new-posts button")).to_be_hidden()
    bar.press("Enter")

    expect(his.locator(".post-body")).to_have_text(["Second", "First", "Thought number 0"])
    expect(bar).to_be_hidden()
    expect(his.get_by_label("Say something")).to_have_value("Half a thought")

    delete(hers, "Second")
    for page in (hers, his):
        expect(page.locator(".post", has_text="Second")).to_have_count(0)
    write(hers, "Third")
    expect(bar).to_have_text("1 new post")
    delete(hers, "Third")
    expect(bar).to_be_hidden()
    expect_same_page(his)

    hers.locator(".post", has_text="First").get_by_role("link", name="Delete").click()
    dialog = hers.get_by_role("dialog")
    dialog.locator("[name=csrf_token]").evaluate("input => input.remove()")
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog.get_by_role("status")).to_contain_text("The page was open too long")


def test_a_post_that_is_deleted_while_nobody_tells_is_gone_when_the_page_asks(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    writer = site.make_user(posts=1)
    page = open_browser().new_page()
    page.context.route("**/notifications/stream*", lambda route: route.abort())  # by asking alone
    site.sign_in(page, writer)
    other = signed_in_page(site, writer, open_browser)

    write(other, "From elsewhere")
    expect(page.locator(".new-posts button")).to_have_text("1 new post")
    delete(other, "number 0")

    expect(page.locator(".post", has_text="number 0")).to_have_count(0)


def test_a_name_opens_a_card_for_the_keyboard_and_for_the_pointer(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    writer, reader = site.make_user(posts=1), site.make_user()
    page = signed_in_page(site, reader, open_browser)
    page.goto(f"{site.url}/user/{writer.username}")
    name, card = page.locator(".post .post-author").first, page.locator("[popover]")
    mark(page)

    page.locator("#timeline").focus()
    page.keyboard.press("Tab")
    expect(name).to_be_focused()
    expect(card).to_contain_text("0 followers")
    page.keyboard.press("Tab")  # the name in the card
    page.keyboard.press("Tab")
    expect(card.get_by_role("button", name="Follow")).to_be_focused()
    with page.expect_request("**/notifications/stream*"):  # which hears of whom one follows now
        page.keyboard.press("Enter")
    expect(card.get_by_role("button", name="Unfollow")).to_be_focused()
    expect(card).to_contain_text("1 follower")
    expect(card.get_by_role("status")).to_have_text(f"You follow {writer.username} now.")
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    expect(name).to_be_focused()
    expect_same_page(page)

    page.get_by_role("heading", level=1).click()
    name.hover()
    expect(card).to_be_visible()
    card.hover()
    page.mouse.move(5, 5)
    expect(card).to_be_hidden()
