"""Private messages and notifications, as two people at once have them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.messages.services import send_message
from microblog.notifications.models import Notification
from tests.browser.site import Site, until_held
from tests.browser.test_live import expect_same_page, mark


def badge(page: Page, name: str) -> Locator:
    return page.locator(f'[data-unread="{name}"]')


def signed_in(site: Site, open_browser: Callable[..., BrowserContext]) -> tuple[User, Page]:
    """A new user, and a page of a browser in which they are signed in."""
    user, page = site.make_user(), open_browser().new_page()
    site.sign_in(page, user)
    return user, page


def test_a_message_shows_at_once_on_every_page_of_its_recipient_until_it_is_opened(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    (susan, hers), (demo, his) = signed_in(site, open_browser), signed_in(site, open_browser)
    his_other = his.context.new_page()
    his_other.goto(f"{site.url}/tasks")
    for tab in (his, his_other):
        expect(badge(tab, "messages")).to_be_hidden()
        tab.evaluate("window.marked = true")

    write_to(hers, site, demo, "Are you there?")
    for tab in (his, his_other):
        expect(badge(tab, "messages")).to_have_text("1 new")
    write_to(hers, site, demo, "Hello?")
    for tab in (his, his_other):
        expect(badge(tab, "messages")).to_have_text("2 new")
        expect(badge(tab, "notifications")).to_have_text("1 new")
        assert tab.evaluate("window.marked") is True, "the page was loaded anew"

    his.get_by_role("link", name="Notifications").click()
    his.get_by_role("link", name=f"{susan.username} wrote you 2 new messages.").click()

    expect(his.locator(".post-body")).to_have_text(["Hello?", "Are you there?"])
    for tab in (his, his_other):
        expect(badge(tab, "messages")).to_be_hidden()
        expect(badge(tab, "notifications")).to_be_hidden()
    assert his_other.evaluate("window.marked") is True, "the page was loaded anew"
    hers.goto(f"{site.url}/tasks")  # on the open conversation it would be read as it comes
    his.get_by_label("Message").fill("Here I am.")
    his.get_by_role("button", name="Send").click()
    expect(badge(hers, "messages")).to_have_text("1 new")
    hers.get_by_role("link", name="Messages").click()
    expect(hers.locator(".post-body")).to_have_text("Here I am.")
    expect(badge(hers, "messages")).to_be_hidden()


@pytest.mark.exhaustive
def test_what_arrives_is_on_the_open_list_and_said_and_what_is_being_written_stays(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    (susan, hers), (demo, his) = signed_in(site, open_browser), signed_in(site, open_browser)
    notices, inbox, conversation = his, his.context.new_page(), his.context.new_page()
    notices.goto(f"{site.url}/notifications/all")
    expect(notices.get_by_text("Nothing here yet.")).to_be_visible()
    sentence = f"{susan.username} wrote you 1 new message."

    write_to(hers, site, demo, "Are you there?")
    expect(notices.get_by_role("link", name=sentence)).to_be_visible()
    expect(notices.get_by_role("status").filter(has_text=sentence)).to_have_count(1)
    notices.get_by_role("button", name="Mark all as read").click()

    for page, path in ((inbox, "/messages"), (conversation, f"/send_message/{susan.username}")):
        page.goto(f"{site.url}{path}")
        expect(page.locator(".post-body")).to_have_text("Are you there?")
    conversation.get_by_label("Message").fill("Here I")
    mark(conversation)
    write_to(hers, site, demo, "Hello?")
    for page in (inbox, conversation):
        expect(page.locator(".post-body")).to_have_text(["Hello?", "Are you there?"])
        expect(page.get_by_role("status").filter(has_text=sentence)).to_have_count(1)
        expect(badge(page, "messages")).to_be_hidden()
    expect(conversation.get_by_label("Message")).to_be_focused()
    expect(conversation.get_by_label("Message")).to_have_value("Here I")
    expect_same_page(conversation)


@pytest.mark.exhaustive
def test_the_newest_page_is_kept_true_by_whatever_way_one_came_to_it_and_so_is_the_focus(
    site: Site, page: Page
) -> None:
    susan, demo = site.make_user(), site.make_user()
    for n in range(26):
        send_message(susan, demo, f"Letter {n}")
    site.sign_in(page, demo)
    page.goto(f"{site.url}/messages")
    page.get_by_role("link", name="Older").click()
    expect(page.locator(".post-body")).to_have_text("Letter 0")
    page.get_by_role("link", name="Newer").click()
    reply = page.locator(".post", has_text="Letter 20").get_by_role("link", name="Reply")
    reply.focus()

    send_message(susan, demo, "The last")

    expect(page.locator(".post-body").first).to_have_text("The last")
    expect(reply).to_be_focused()


@pytest.mark.exhaustive
def test_the_focus_stays_on_a_notice_that_says_more_by_now(site: Site, page: Page) -> None:
    susan, demo = site.make_user(), site.make_user()
    send_message(susan, demo, "Are you there?")
    site.sign_in(page, demo)
    page.goto(f"{site.url}/notifications/all")
    notice = page.locator("#notices").get_by_role("link")
    notice.focus()

    send_message(susan, demo, "Hello?")

    expect(notice).to_have_text(f"{susan.username} wrote you 2 new messages.")
    expect(notice).to_be_focused()


@pytest.mark.exhaustive
def test_a_badge_comes_true_on_a_page_that_was_not_told(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    susan, (demo, his) = site.make_user(), signed_in(site, open_browser)
    asking = his.context.new_page()
    asking.route("**/notifications/stream*", lambda route: route.abort())
    send_message(susan, demo, "Are you there?")
    his.goto(f"{site.url}/notifications/all")
    his.get_by_role("button", name="Mark all as read").click()
    expect(badge(his, "notifications")).to_be_hidden()
    db.session.execute(sa.update(Notification).values(updated_at=utcnow() - timedelta(minutes=1)))  # it is long ago
    db.session.commit()
    asking.goto(f"{site.url}/tasks")
    expect(badge(asking, "messages")).to_have_text("1 new")

    his.goto(f"{site.url}/messages")

    expect(badge(asking, "messages")).to_be_hidden()


@pytest.mark.exhaustive
def test_messages_are_written_read_and_deleted_without_javascript(
    site: Site, open_browser: Callable[..., BrowserContext]
) -> None:
    susan, demo = site.make_user(), site.make_user()
    hers = open_browser(java_script_enabled=False).new_page()
    his = open_browser(java_script_enabled=False).new_page()
    site.sign_in(hers, susan)
    site.sign_in(his, demo)

    write_to(hers, site, demo, "Written by hand")
    his.reload()
    expect(badge(his, "messages")).to_have_text("1 new")
    his.get_by_role("link", name="Messages").click()
    expect(his.locator(".post-body")).to_have_text("Written by hand")
    his.get_by_role("link", name="Delete").click()
    expect(his.locator(".post-body")).to_have_text("Written by hand")
    his.get_by_role("button", name="Delete").click()

    expect(his.get_by_text("Nobody has written to you yet.")).to_be_visible()
    hers.reload()
    expect(hers.locator(".post-body")).to_have_text("Written by hand")


@pytest.mark.exhaustive
def test_a_second_click_while_the_first_is_under_way_writes_nothing(site: Site, page: Page) -> None:
    susan, demo = site.make_user(), site.make_user()
    site.sign_in(page, susan)
    held: list[Route] = []
    page.route("**", lambda route: held.append(route) if route.request.method == "POST" else route.continue_())

    forms = [("/", "Say something", "Post"), (f"/send_message/{demo.username}", "Message", "Send")]
    for number, (path, label, name) in enumerate(forms, 1):
        page.goto(f"{site.url}{path}")
        page.get_by_label(label).fill("Once is enough")
        button = page.get_by_role("button", name=name, exact=True)
        button.evaluate("""button => button.form.addEventListener("submit", () => setTimeout(() => {
            button.click();
            console.log("clicked again");
        }, 200), { once: true })""")
        with page.expect_console_message(lambda message: message.text == "clicked again"):
            button.click(no_wait_after=True)
        until_held(page, held, number)
        held[-1].continue_()

        expect(page.locator(".alert-success")).to_be_visible()
    assert len(held) == 2


def write_to(page: Page, site: Site, user: User, text: str) -> None:
    """As a reader of the other's profile does."""
    page.goto(f"{site.url}/user/{user.username}")
    page.get_by_role("link", name="Send a message").click()
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Your message is sent.")).to_be_visible()
