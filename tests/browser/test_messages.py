"""Private messages and notifications of two users who are signed in at the same time."""

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
    """Create a user, and return them with a page in which they are signed in."""
    user, page = site.make_user(), open_browser().new_page()
    site.sign_in(page, user)
    return user, page


@pytest.mark.exhaustive
def test_new_message_updates_badges_until_read(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    (susan, susan_page), (demo, demo_page) = signed_in(site, open_browser), signed_in(site, open_browser)
    other_page = demo_page.context.new_page()
    other_page.goto(f"{site.url}/tasks")
    for tab in (demo_page, other_page):
        expect(badge(tab, "messages")).to_be_hidden()
        tab.evaluate("window.marked = true")

    write_to(susan_page, site, demo, "Are you there?")
    for tab in (demo_page, other_page):
        expect(badge(tab, "messages")).to_have_text("1 new")
    write_to(susan_page, site, demo, "Hello?")
    for tab in (demo_page, other_page):
        expect(badge(tab, "messages")).to_have_text("2 new")
        expect(badge(tab, "notifications")).to_have_text("1 new")
        assert tab.evaluate("window.marked") is True, "the page was reloaded"

    demo_page.get_by_role("link", name="Notifications").click()
    demo_page.get_by_role("link", name=f"{susan.username} wrote you 2 new messages.").click()

    expect(demo_page.locator(".post-body")).to_have_text(["Hello?", "Are you there?"])
    for tab in (demo_page, other_page):
        expect(badge(tab, "messages")).to_be_hidden()
        expect(badge(tab, "notifications")).to_be_hidden()
    assert other_page.evaluate("window.marked") is True, "the page was reloaded"
    susan_page.goto(f"{site.url}/tasks")  # in the open conversation the message would be marked as read at once
    demo_page.get_by_label("Message").fill("Here I am.")
    demo_page.get_by_role("button", name="Send").click()
    expect(badge(susan_page, "messages")).to_have_text("1 new")
    susan_page.get_by_role("link", name="Messages").click()
    expect(susan_page.locator(".post-body")).to_have_text("Here I am.")
    expect(badge(susan_page, "messages")).to_be_hidden()


@pytest.mark.exhaustive
def test_open_lists_show_new_message_and_keep_draft(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    (susan, susan_page), (demo, demo_page) = signed_in(site, open_browser), signed_in(site, open_browser)
    notices, inbox, conversation = demo_page, demo_page.context.new_page(), demo_page.context.new_page()
    notices.goto(f"{site.url}/notifications/all")
    expect(notices.get_by_text("Nothing here yet.")).to_be_visible()
    sentence = f"{susan.username} wrote you 1 new message."

    write_to(susan_page, site, demo, "Are you there?")
    expect(notices.get_by_role("link", name=sentence)).to_be_visible()
    expect(notices.get_by_role("status").filter(has_text=sentence)).to_have_count(1)
    notices.get_by_role("button", name="Mark all as read").click()

    for page, path in ((inbox, "/messages"), (conversation, f"/send_message/{susan.username}")):
        page.goto(f"{site.url}{path}")
        expect(page.locator(".post-body")).to_have_text("Are you there?")
    conversation.get_by_label("Message").fill("Here I")
    mark(conversation)
    write_to(susan_page, site, demo, "Hello?")
    for page in (inbox, conversation):
        expect(page.locator(".post-body")).to_have_text(["Hello?", "Are you there?"])
        expect(page.get_by_role("status").filter(has_text=sentence)).to_have_count(1)
        expect(badge(page, "messages")).to_be_hidden()
    expect(conversation.get_by_label("Message")).to_be_focused()
    expect(conversation.get_by_label("Message")).to_have_value("Here I")
    expect_same_page(conversation)


@pytest.mark.exhaustive
def test_newest_page_is_live_after_paging_back(site: Site, page: Page) -> None:
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
def test_focus_stays_on_updated_notification(site: Site, page: Page) -> None:
    susan, demo = site.make_user(), site.make_user()
    send_message(susan, demo, "Are you there?")
    site.sign_in(page, demo)
    page.goto(f"{site.url}/notifications/all")
    notice = page.locator("#notifications").get_by_role("link")
    notice.focus()

    send_message(susan, demo, "Hello?")

    expect(notice).to_have_text(f"{susan.username} wrote you 2 new messages.")
    expect(notice).to_be_focused()


@pytest.mark.exhaustive
def test_badge_is_corrected_by_polling(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    susan, (demo, demo_page) = site.make_user(), signed_in(site, open_browser)
    polling_page = demo_page.context.new_page()
    polling_page.route("**/notifications/stream*", lambda route: route.abort())
    send_message(susan, demo, "Are you there?")
    demo_page.goto(f"{site.url}/notifications/all")
    demo_page.get_by_role("button", name="Mark all as read").click()
    expect(badge(demo_page, "notifications")).to_be_hidden()
    # The change is no longer recent.
    db.session.execute(sa.update(Notification).values(updated_at=utcnow() - timedelta(minutes=1)))
    db.session.commit()
    polling_page.goto(f"{site.url}/tasks")
    expect(badge(polling_page, "messages")).to_have_text("1 new")

    demo_page.goto(f"{site.url}/messages")

    expect(badge(polling_page, "messages")).to_be_hidden()


@pytest.mark.exhaustive
def test_messages_work_without_javascript(site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    susan, demo = site.make_user(), site.make_user()
    susan_page = open_browser(java_script_enabled=False).new_page()
    demo_page = open_browser(java_script_enabled=False).new_page()
    site.sign_in(susan_page, susan)
    site.sign_in(demo_page, demo)

    write_to(susan_page, site, demo, "Written by hand")
    demo_page.reload()
    expect(badge(demo_page, "messages")).to_have_text("1 new")
    demo_page.get_by_role("link", name="Messages").click()
    expect(demo_page.locator(".post-body")).to_have_text("Written by hand")
    demo_page.get_by_role("link", name="Delete").click()
    expect(demo_page.locator(".post-body")).to_have_text("Written by hand")
    demo_page.get_by_role("button", name="Delete").click()

    expect(demo_page.get_by_text("Nobody has written to you yet.")).to_be_visible()
    susan_page.reload()
    expect(susan_page.locator(".post-body")).to_have_text("Written by hand")


@pytest.mark.exhaustive
def test_double_click_submits_form_once(site: Site, page: Page) -> None:
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
    """Send a message to a user from their profile."""
    page.goto(f"{site.url}/user/{user.username}")
    page.get_by_role("link", name="Send a message").click()
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Your message is sent.")).to_be_visible()
