"""Live updates of a job on open pages, with and without interruptions of the connection."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from microblog.notifications.pubsub import CHANNEL
from microblog.taskqueue.reconcile import reconcile_all
from tests.browser.site import Site
from tests.browser.tasks import END, Dial
from tests.support.factories import state_of
from tests.support.servers import wait_for
from tests.support.smtp import SmtpServer

STREAM = "**/notifications/stream*"
POLLING = re.compile(r"/notifications\?")


def card(page: Page, job_id: str) -> Locator:
    return page.locator(f'[data-job="{job_id}"]')


def expect_bar(page: Page, job_id: str, number: int) -> None:
    """Expect the bar of the job to reach `number`."""
    expect(card(page, job_id).get_by_role("progressbar")).to_have_attribute("aria-valuenow", str(number))


def expect_state(page: Page, job_id: str, state: str) -> None:
    expect(card(page, job_id).locator(".job-state")).to_have_text(state)


def mark(page: Page) -> None:
    """Mark the page, so that expect_same_page() can detect a reload."""
    page.evaluate("window.marked = true")


def expect_same_page(page: Page) -> None:
    assert page.evaluate("window.marked") is True, "the page was reloaded"


def open_streams(site: Site) -> bool:
    """Return True if a web process is subscribed to the channel.

    The published message makes each process check whether it still needs its subscription.
    """
    site.redis_server.client.publish(site.redis_server.key(CHANNEL), '{"topics": [], "event": {}}')
    return subscriptions(site) > 0


def subscriptions(site: Site) -> int:
    """Return the number of web processes that are subscribed to the channel."""
    return int(site.redis_server.client.pubsub_numsub(site.redis_server.key(CHANNEL))[0][1])


@pytest.fixture
def export(site: Site, page: Page) -> Callable[[], str]:
    """A function that signs in a new user, starts an export by its button and returns the job's id."""

    def start_export() -> str:
        user = site.make_user(posts=5)
        site.sign_in(page, user)
        page.get_by_role("link", name="Profile").click()
        page.get_by_role("button", name="Export your posts").click()
        return page.locator(".job").get_attribute("data-job") or ""

    return start_export


@pytest.mark.exhaustive
def test_all_open_pages_show_job_progress(site: Site, page: Page, dial: Dial) -> None:
    page.context.route(POLLING, lambda route: route.abort())  # only the stream, no polling
    user = site.make_user()
    site.sign_in(page, user)
    other = page.context.new_page()
    other.goto(f"{site.url}/tasks")
    mark(page)
    mark(other)

    job_id = site.start_job(user, dial)

    for number in (20, 55):
        dial.turn_to(number)
        for tab in (page, other):
            expect_bar(tab, job_id, number)
            expect(card(tab, job_id).locator(".job-message")).to_have_text(f"{number} of 100 turns")
    dial.turn_to(END)
    for tab in (page, other):
        expect_state(tab, job_id, "Done")
        expect_same_page(tab)


@pytest.mark.exhaustive
def test_job_of_other_user_is_not_shown(site: Site, open_browser: Callable[..., BrowserContext], dial: Dial) -> None:
    owner, other_user = site.make_user(), site.make_user()
    pages = [open_browser().new_page(), open_browser().new_page()]
    for page, user in zip(pages, (owner, other_user), strict=True):
        site.sign_in(page, user)

    job_id = site.start_job(owner, dial)
    dial.turn_to(END)

    expect_state(pages[0], job_id, "Done")
    expect(pages[1].locator(".job")).to_have_count(0)


@pytest.mark.exhaustive
def test_state_changes_are_announced_but_not_progress(site: Site, page: Page, dial: Dial) -> None:
    user = site.make_user()
    site.sign_in(page, user)
    announcement = page.locator("#jobs-announcement")
    expect(announcement).to_have_role("status")
    expect(announcement).to_have_attribute("aria-live", "polite")

    job_id = site.start_job(user, dial)
    expect(announcement).to_have_text("Turning the crank: Running")
    dial.turn_to(40)
    expect_bar(page, job_id, 40)
    expect(announcement).to_have_text("Turning the crank: Running")
    dial.turn_to(END)

    expect(announcement).to_have_text("Turning the crank: Done")


@pytest.mark.exhaustive
def test_running_job_is_cancelled_by_keyboard(site: Site, page: Page, dial: Dial) -> None:
    user = site.make_user()
    site.sign_in(page, user)
    job_id = site.start_job(user, dial)
    dial.turn_to(10)
    expect_bar(page, job_id, 10)

    tab_to(page, card(page, job_id).get_by_role("button", name="Cancel"))
    page.keyboard.press("Enter")

    expect_state(page, job_id, "Cancelled")


@pytest.mark.exhaustive
def test_focus_is_kept_when_card_changes(site: Site, page: Page, dial: Dial) -> None:
    user = site.make_user()
    site.sign_in(page, user)
    job_id = site.start_job(user, dial)
    dial.turn_to(10)
    expect_bar(page, job_id, 10)
    tab_to(page, card(page, job_id).get_by_role("button", name="Cancel"))

    dial.turn_to(END)

    expect_state(page, job_id, "Done")
    expect(card(page, job_id)).to_be_focused()


@pytest.mark.exhaustive
def test_cancelled_export_is_retried(site: Site, page: Page, dial: Dial, smtp_server: SmtpServer) -> None:
    user = site.make_user(posts=5)
    site.sign_in(page, user)
    smtp_server.answer = "451 4.3.0 Later"
    page.goto(f"{site.url}/user/{user.username}")
    page.get_by_role("button", name="Export your posts").click()
    page.locator(".job-retry").get_by_role("button", name="Cancel").click()
    expect(page.locator(".job-state")).to_have_text("Cancelled")
    smtp_server.answer = None

    page.get_by_role("button", name="Try again").click()

    done = page.locator(".job-success")
    expect(done.locator(".job-state")).to_have_text("Done")
    expect(done.get_by_role("link", name="Download")).to_be_visible()
    expect(page.locator(".job")).to_have_count(2)
    assert len(smtp_server.messages) == 1


@pytest.mark.exhaustive
def test_failed_job_shows_error_and_is_retried(export: Callable[[], str], page: Page, smtp_server: SmtpServer) -> None:
    smtp_server.answer = "554 5.7.1 We do not like you"

    job_id = export()

    expect_state(page, job_id, "Failed")
    expect(card(page, job_id)).to_contain_text("The mail server refused: 554 5.7.1 We do not like you")
    smtp_server.answer = None
    card(page, job_id).get_by_role("button", name="Try again").click()
    expect(page.locator(".job-success .job-state")).to_have_text("Done")


@pytest.mark.exhaustive
def test_deferred_mail_shows_time_of_next_attempt(
    export: Callable[[], str], page: Page, smtp_server: SmtpServer
) -> None:
    smtp_server.answer = "451 4.3.0 Later"

    job_id = export()

    expect_state(page, job_id, "Trying again soon")
    expect(card(page, job_id)).to_contain_text("The mail server refused: 451 4.3.0 Later")
    expect(card(page, job_id)).to_contain_text(re.compile(r"Next attempt: in \d+ seconds?"))
    smtp_server.answer = None
    wait_for(reconcile_all, what="the next attempt is due")
    expect_state(page, job_id, "Done")


@pytest.mark.exhaustive
def test_second_export_is_refused_while_one_runs(
    export: Callable[[], str], page: Page, smtp_server: SmtpServer
) -> None:
    smtp_server.answer = "451 4.3.0 Later"
    job_id = export()

    page.get_by_role("button", name="Export your posts").click()

    expect(page.get_by_text("An export is already running.")).to_be_visible()
    expect(page.locator(".job")).to_have_count(1)
    card(page, job_id).get_by_role("button", name="Cancel").click()
    expect_state(page, job_id, "Cancelled")


@pytest.mark.exhaustive
def test_page_without_stream_polls(site: Site, page: Page, dial: Dial) -> None:
    page.route(STREAM, lambda route: route.abort())
    user = site.make_user()
    site.sign_in(page, user)
    mark(page)

    job_id = site.start_job(user, dial)
    dial.turn_to(END)

    expect_state(page, job_id, "Done")
    expect_same_page(page)


@pytest.mark.exhaustive
def test_page_catches_up_after_stream_is_cut(site: Site, page: Page, dial: Dial) -> None:
    page.route(POLLING, lambda route: route.abort())  # only the stream, no polling
    user = site.make_user()
    site.sign_in(page, user)
    mark(page)
    job_id = site.start_job(user, dial)
    dial.turn_to(20)
    expect_bar(page, job_id, 20)

    site.web.kill()
    dial.turn_to(END)
    wait_for(lambda: state_of(job_id) == "SUCCESS", what="the job ends")
    site.web.restart()

    expect_state(page, job_id, "Done")
    expect_same_page(page)
    wait_for(lambda: subscriptions(site), what="the new process subscribes")
    next_job = site.start_job(user, dial)
    expect_state(page, next_job, "Done")


@pytest.mark.exhaustive
def test_page_catches_up_after_being_offline(site: Site, page: Page, dial: Dial) -> None:
    user = site.make_user()
    site.sign_in(page, user)
    mark(page)
    job_id = site.start_job(user, dial)
    dial.turn_to(20)
    expect_bar(page, job_id, 20)

    page.context.set_offline(True)
    dial.turn_to(END)
    wait_for(lambda: state_of(job_id) == "SUCCESS", what="the job ends")
    page.context.set_offline(False)

    expect_state(page, job_id, "Done")
    expect_same_page(page)


@pytest.mark.exhaustive
def test_failed_card_request_is_repeated(site: Site, page: Page, dial: Dial) -> None:
    user = site.make_user()
    site.sign_in(page, user)
    failures = iter([True])

    def fail_once(route: Route) -> None:
        if next(failures, False):
            route.fulfill(status=503, body="unavailable")
        else:
            route.continue_()

    job_id = site.start_job(user, dial)
    dial.turn_to(20)
    expect_bar(page, job_id, 20)
    page.route("**/card", fail_once)
    dial.turn_to(END)

    expect_state(page, job_id, "Done")
    assert next(failures, None) is None


@pytest.mark.exhaustive
def test_hidden_page_closes_stream_and_catches_up(site: Site, page: Page, dial: Dial) -> None:
    user = site.make_user()
    site.sign_in(page, user)
    job_id = site.start_job(user, dial)
    dial.turn_to(20)
    expect_bar(page, job_id, 20)

    set_hidden(page, True)
    wait_for(lambda: not open_streams(site), what="the stream is closed")
    dial.turn_to(END)
    wait_for(lambda: state_of(job_id) == "SUCCESS", what="the job ends")
    set_hidden(page, False)

    expect_state(page, job_id, "Done")


@pytest.mark.exhaustive
def test_sign_out_closes_stream(site: Site, page: Page) -> None:
    user = site.make_user()
    with page.expect_response(STREAM) as opened:
        site.sign_in(page, user)
    assert opened.value.status == 200
    wait_for(lambda: open_streams(site), what="the stream is open")

    page.get_by_role("button", name="Sign out").click()

    expect(page.get_by_text("You are signed out.")).to_be_visible()
    wait_for(lambda: not open_streams(site), what="the stream is closed")


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until `target` has the focus."""
    for _press in range(30):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError("Tab does not reach the target")


def set_hidden(page: Page, hidden: bool) -> None:
    """Simulate leaving the tab or returning to it: in a headless browser all tabs are visible."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )
