"""The operators' pages: live updates of all users' jobs, actions by click, and use without scripts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.jobs.models import find_job
from microblog.jobs.services import cancel_job
from tests.browser.site import Site
from tests.browser.tasks import END, Dial
from tests.browser.test_live import expect_bar, expect_same_page, mark
from tests.support.factories import state_of
from tests.support.servers import wait_for


@pytest.fixture
def operator(site: Site) -> User:
    user = site.make_user()
    user.is_operator = True
    db.session.commit()
    return user


def open_list(site: Site, page: Page, operator: User, query: str = "", *, scripts: bool = True) -> None:
    site.sign_in(page, operator)
    page.goto(f"{site.url}/admin/tasks{query}")
    if not scripts:
        return
    # A script loads the status above the charts and the list, which moves them: a click at that moment would miss.
    expect(page.locator("#system-status")).to_contain_text(site.worker.name)


def row(page: Page, job_id: str) -> Locator:
    return page.locator(f'tr[data-job="{job_id}"]')


def tick(page: Page, job_id: str) -> None:
    row(page, job_id).get_by_role("checkbox").check()


@pytest.mark.exhaustive
def test_job_list_is_updated_live(site: Site, page: Page, operator: User, dial: Dial) -> None:
    user = site.make_user()
    open_list(site, page, operator, f"?user={user.username}")
    expect(page.get_by_text("There are no such jobs.")).to_be_visible()
    mark(page)

    job_id = site.start_job(user, dial)
    dial.turn_to(30)
    expect_bar(page, job_id, 30)
    dial.turn_to(60)
    expect_bar(page, job_id, 60)
    expect(row(page, job_id)).to_contain_text("60 of 100 turns")
    dial.turn_to(END)

    expect(row(page, job_id).locator(".state")).to_have_text("Done")
    expect_same_page(page)


@pytest.mark.exhaustive
def test_running_job_is_cancelled_on_its_page(site: Site, page: Page, operator: User, dial: Dial) -> None:
    user = site.make_user()
    job_id = site.start_job(user, dial)
    dial.turn_to(10)
    open_list(site, page, operator, "?state=unfinished")
    row(page, job_id).get_by_role("link", name="Turning the crank").click()
    expect_bar(page, job_id, 10)

    page.get_by_role("button", name="Cancel").click()

    expect(page.locator("#job > .admin-head .state")).to_have_text("Cancelled")
    expect(page.locator(".event-cancelled")).to_be_visible()
    assert state_of(job_id) == "REVOKED"
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


@pytest.mark.exhaustive
def test_focus_moves_to_job_when_button_is_replaced(site: Site, page: Page, operator: User, dial: Dial) -> None:
    user = site.make_user()
    job_id = site.start_job(user, dial)
    dial.turn_to(10)
    site.sign_in(page, operator)
    page.goto(f"{site.url}/admin/tasks/{job_id}")
    expect_bar(page, job_id, 10)
    page.get_by_role("button", name="Cancel").focus()

    job = find_job(job_id)
    assert job is not None
    cancel_job(job)

    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    expect(page.locator("#job")).to_be_focused()


@pytest.mark.exhaustive
def test_selection_survives_updates_and_is_cancelled(site: Site, page: Page, operator: User, dial: Dial) -> None:
    chosen = site.start_job(site.make_user(), dial)
    open_list(site, page, operator, "?name=crank")
    tick(page, chosen)
    expect(page.get_by_text("1 chosen")).to_be_visible()

    other = site.start_job(site.make_user(), dial)
    expect(row(page, other)).to_be_visible()
    expect(row(page, chosen).get_by_role("checkbox")).to_be_checked()
    expect(row(page, chosen).get_by_role("checkbox")).to_be_focused()
    page.locator("#selection").get_by_role("button", name="Cancel").click()

    expect(page.get_by_text("1 job was cancelled.")).to_be_visible()
    wait_for(lambda: state_of(chosen) == "REVOKED", what="the chosen job is cancelled")
    assert state_of(other) != "REVOKED"


@pytest.mark.exhaustive
def test_system_status_is_loaded_by_script(site: Site, page: Page, operator: User) -> None:
    open_list(site, page, operator)

    expect(page.locator("#system-status").get_by_role("link", name="exports", exact=True)).to_be_visible()


@pytest.mark.exhaustive
def test_chart_has_table_of_values(site: Site, page: Page, operator: User, dial: Dial) -> None:
    job_id = site.start_job(site.make_user(), dial)
    dial.turn_to(END)
    wait_for(lambda: state_of(job_id) == "SUCCESS", what="the job ends")
    open_list(site, page, operator)

    chart = page.get_by_role("figure").filter(has_text="Finished tasks")
    chart.get_by_text("Figures").click()

    drawn = chart.get_by_role("img").evaluate("image => image.decode().then(() => image.naturalWidth)")
    assert drawn > 0
    expect(chart.get_by_role("columnheader", name="Succeeded")).to_be_visible()
    # The newest hour comes first. A new hour may have begun since the job ended.
    assert sum(int(hour.locator("td").first.inner_text()) for hour in chart.locator("tbody tr").all()[:2]) >= 1


@pytest.mark.exhaustive
def test_jobs_are_filtered_and_cancelled_without_javascript(
    site: Site, open_browser: Callable[..., BrowserContext], operator: User, dial: Dial
) -> None:
    page = open_browser(java_script_enabled=False).new_page()
    users = [site.make_user() for _ in range(2)]
    first, second = (site.start_job(user, dial) for user in users)
    open_list(site, page, operator, scripts=False)

    page.get_by_label("User", exact=True).fill(users[0].username)
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tr[data-job]")).to_have_count(1)
    tick(page, first)
    page.locator("#selection").get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("1 job was cancelled.")).to_be_visible()

    page.goto(f"{site.url}/admin/tasks?user={users[1].username}")
    page.get_by_role("link", name="Cancel…").click()
    expect(page.get_by_text("1 job matches that has yet to end.")).to_be_visible()
    page.get_by_role("button", name="Cancel them").click()
    expect(page.get_by_text("1 job was cancelled.")).to_be_visible()

    wait_for(lambda: state_of(first) == state_of(second) == "REVOKED", what="the jobs are cancelled")
    page.get_by_role("link", name="How workers, queues and schedule stand").click()
    expect(page.get_by_role("heading", name="Queues", exact=True)).to_be_visible()
