"""Timelines of two users at once: live updates, user cards and paging."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from microblog.accounts.models import Follow, User
from microblog.accounts.services import follow_user
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.posts.models import Post
from tests.browser.page_checks import visible_problems
from tests.browser.site import Site
from tests.browser.test_live import expect_same_page, mark


def write(page: Page, text: str) -> None:
    page.get_by_label("Say something").fill(text)
    page.get_by_role("button", name="Post", exact=True).click()
    expect(page.locator(".post-body").first).to_have_text(text)
    page.wait_for_load_state("load")  # the scripts of the new page have run


def delete(page: Page, text: str) -> None:
    ask_to_delete(page, text)
    agree(page)


def ask_to_delete(page: Page, text: str) -> None:
    page.locator(".post", has_text=text).get_by_role("link", name="Delete").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def agree(page: Page) -> None:
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("status").filter(has_text="Your post is deleted.")).to_be_visible()


def new_posts(page: Page) -> Locator:
    """Return the button that shows the number of new posts."""
    return page.locator(".new-posts button")


def open_live(page: Page, url: str) -> None:
    """Open a page and wait until its event stream is connected."""
    with page.expect_response("**/notifications/stream*"):
        page.goto(url)


def write_at_once(author: User, count: int) -> None:
    """Add `count` posts with the same current timestamp. Open pages also receive events for those beyond the page."""
    now = utcnow()
    db.session.add_all(Post(user_id=author.id, body=f"Echo number {n}", timestamp=now) for n in range(count))
    db.session.commit()


def signed_in_page(site: Site, user: User, open_browser: Callable[..., BrowserContext]) -> Page:
    page = open_browser().new_page()
    with page.expect_response("**/notifications/stream*"):
        site.sign_in(page, user)
    return page


@pytest.mark.exhaustive
def test_new_and_deleted_posts_update_timeline(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    writer, reader = site.make_user(), site.make_user(posts=1)
    follow_user(reader, writer)
    writer_page, reader_page = (signed_in_page(site, user, open_browser) for user in (writer, reader))
    reader_page.get_by_label("Say something").fill("Half a thought")
    mark(reader_page)
    bar = new_posts(reader_page)

    write(writer_page, "First")
    expect(bar).to_have_text("1 new post")
    write(writer_page, "Second")
    expect(bar).to_have_text("2 new posts")
    expect(new_posts(writer_page)).to_be_hidden()
    assert visible_problems(reader_page, "home with new posts") == []
    bar.press("Enter")

    expect(reader_page.locator(".post-body")).to_have_text(["Second", "First", "Thought number 0"])
    expect(bar).to_be_hidden()
    expect(reader_page.get_by_label("Say something")).to_have_value("Half a thought")

    ask_to_delete(writer_page, "Second")
    assert visible_problems(writer_page, "home with a question") == []
    agree(writer_page)
    for page in (writer_page, reader_page):
        expect(page.locator(".post", has_text="Second")).to_have_count(0)
    write(writer_page, "Third")
    expect(bar).to_have_text("1 new post")
    delete(writer_page, "Third")
    expect(bar).to_be_hidden()
    expect_same_page(reader_page)

    writer_page.locator(".post", has_text="First").get_by_role("link", name="Delete").click()
    dialog = writer_page.get_by_role("dialog")
    dialog.locator("[name=csrf_token]").evaluate("input => input.remove()")
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog.get_by_role("status")).to_contain_text("The page was open too long")


@pytest.mark.exhaustive
def test_explore_profile_and_badges_are_live(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    writer, reader = site.make_user(), site.make_user()
    write_at_once(site.make_user(), 30)
    writer_page, reader_page = (signed_in_page(site, user, open_browser) for user in (writer, reader))
    second_page = writer_page.context.new_page()
    open_live(second_page, f"{site.url}/tasks")
    badge = '[data-unread="notifications"]'

    for path, text in (("/explore", "For everybody"), (f"/user/{writer.username}", "For those who look")):
        open_live(reader_page, f"{site.url}{path}")
        write(writer_page, text)
        expect(new_posts(reader_page)).to_have_text("1 new post")
        new_posts(reader_page).click()
        expect(reader_page.locator(".post-body").first).to_have_text(text)
    reader_page.get_by_role("button", name=f"Follow {writer.username}").click()
    expect(reader_page.get_by_role("status").filter(has_text=f"You follow {writer.username} now.")).to_be_visible()

    for page in (writer_page, second_page):
        expect(page.locator(badge)).to_have_text("1 new")
    writer_page.get_by_role("link", name="Notifications").click()
    expect(writer_page.locator(".unread")).to_contain_text(reader.username)
    writer_page.get_by_role("button", name="Mark all as read").click()
    for page in (writer_page, second_page):
        expect(page.locator(badge)).to_be_hidden()
    expect(writer_page.locator(".unread")).to_have_count(0)
    writer_page.get_by_role("link", name=reader.username).click()
    writer_page.wait_for_url(f"{site.url}/user/{reader.username}")
    reader_page.get_by_role("button", name=f"Unfollow {writer.username}").click()
    expect(reader_page.get_by_role("button", name=f"Follow {writer.username}", exact=True)).to_be_visible()


@pytest.mark.exhaustive
def test_posts_and_followers_are_paged(site: Site, page: Page) -> None:
    writer = site.make_user(posts=30)
    followed_by_many(writer, 30)
    site.sign_in(page, writer)
    page.get_by_role("link", name="Profile").click()
    bodies, people = page.locator(".post-body"), page.locator(".item-list .post-author")

    expect(bodies).to_have_text([f"Thought number {n}" for n in range(29, 4, -1)])
    page.get_by_role("link", name="Older").click()
    expect(bodies).to_have_text([f"Thought number {n}" for n in range(4, -1, -1)])
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    page.get_by_role("link", name="Newer").click()
    expect(bodies).to_have_text([f"Thought number {n}" for n in range(29, 4, -1)])

    page.get_by_role("link", name="30 followers").click()
    expect(people).to_have_count(25)
    first = people.all_inner_texts()
    page.get_by_role("link", name="Older").click()
    expect(people).to_have_count(5)
    assert not set(first) & set(people.all_inner_texts())
    page.get_by_role("link", name="Newer").click()
    expect(people).to_have_text(first)
    people.first.click()
    page.wait_for_url(f"**/user/{writer.username}-fan*")
    page.get_by_role("link", name="1 following").click()
    expect(people).to_have_text([writer.username])


@pytest.mark.exhaustive
def test_deleted_post_is_removed_by_polling(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    writer = site.make_user(posts=1)
    page = open_browser().new_page()
    page.context.route("**/notifications/stream*", lambda route: route.abort())  # polling only
    site.sign_in(page, writer)
    other = signed_in_page(site, writer, open_browser)

    write(other, "From elsewhere")
    expect(new_posts(page)).to_have_text("1 new post")
    delete(other, "number 0")

    expect(page.locator(".post", has_text="number 0")).to_have_count(0)


@pytest.mark.exhaustive
def test_user_card_opens_by_keyboard_and_pointer(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    writer, reader = site.make_user(posts=1), site.make_user()
    page = signed_in_page(site, reader, open_browser)
    page.goto(f"{site.url}/user/{writer.username}")
    name, card = page.locator(".post .post-author").first, page.locator("[popover]")
    mark(page)

    page.locator("#timeline").focus()
    page.keyboard.press("Tab")
    expect(name).to_be_focused()
    expect(card).to_contain_text("0 followers")
    assert visible_problems(page, "profile with a card", widths=[1280]) == []
    page.keyboard.press("Tab")  # the name in the card
    page.keyboard.press("Tab")
    expect(card.get_by_role("button", name="Follow")).to_be_focused()
    with page.expect_request("**/notifications/stream*"):  # reconnected to include the followed user
        page.keyboard.press("Enter")
    expect(card.get_by_role("button", name="Unfollow")).to_be_focused()
    expect(card).to_contain_text("1 follower")
    expect(card.get_by_role("status")).to_have_text(f"You follow {writer.username} now.")
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    expect(name).to_be_focused()
    expect_same_page(page)

    page.set_viewport_size({"width": 390, "height": 900})
    page.get_by_role("heading", level=1).click()
    name.hover()
    expect(card).to_be_visible()
    assert visible_problems(page, "profile with a card", widths=[390]) == []
    card.hover()
    page.mouse.move(5, 5)
    expect(card).to_be_hidden()


def followed_by_many(user: User, number: int) -> None:
    """Create `number` users who follow `user`."""
    names = [f"{user.username}-fan{n}" for n in range(number)]
    fans = [User(username=name, email=f"{name}@example.com", password_hash="") for name in names]
    db.session.add_all(fans)
    db.session.flush()
    db.session.add_all(Follow(follower_id=fan.id, followed_id=user.id) for fan in fans)
    db.session.commit()
