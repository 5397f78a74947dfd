"""Every page, at both widths and in both themes: no errors, no foreign requests, readable and accessible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from flask import current_app
from playwright.sync_api import Browser, BrowserContext, Page, expect

from microblog.accounts import tokens
from microblog.accounts.models import EmailChange, Follow, User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.messages.services import send_message
from microblog.posts.models import Post
from tests.browser.page_checks import problems_of, visible_problems
from tests.browser.site import Site, new_context
from tests.support.clients import PASSWORD
from tests.support.factories import add_task, state_of
from tests.support.servers import wait_for
from tests.support.smtp import SmtpServer

# The pages of an anonymous visitor, a reader, and an operator with jobs of every kind. The names in braces are keys of
# SeedData.values.
PAGES = {
    "anonymous": [
        "/auth/login",
        "/auth/register",
        "/auth/reset_password_request",
        "{reset_link}",
        "{address_link}",
        "/api/docs",
        "/nothing",
    ],
    "reader": [
        "/",
        "/explore",
        "/user/{reader}",
        "/user/{reader}/followers",
        "/user/{reader}/following",
        "/user/friend",
        "/user/friend/popup",
        "/post/{post}",
        "/post/{post}/delete",
        "/posts/{foreign_post}/translation",
        "/search",
        "/search?q=thought",
        "/search?q=nobodywrotethis",
        "/notifications/all",
        "/messages",
        "/messages/sent",
        "/messages/{message}/delete",
        "/send_message/friend",
        "/import",
        "/edit_profile",
        "/account",
        "/account/tokens",
        "/account/password",
        "/account/email",
        "/account/delete",
        "/account/delete/confirm",
        "/auth/logout",
        "/dev/mail",
        "{mail}",
    ],
    "operator": [
        "/",
        "/tasks",
        "/admin/tasks",
        "/admin/tasks?user=nobody",
        "/admin/tasks?state=retry",
        "/admin/tasks/{export}",
        "/admin/tasks/Retrying",
        "/admin/tasks/all/cancel",
        "/admin/status",
    ],
}
IN_EACH_RUN = {("reader", "/")}
# Endpoints for GET that are not pages: files, data for scripts and programs, redirects.
NO_PAGES = {
    "development.attachment",
    "development.html",
    "exports.download",
    "imports.rejected",
    "monitoring.health",
    "monitoring.metrics",
    "monitoring.ready",
    "notifications.follow_up",
    "notifications.poll",
    "static",
    "tasks.card",
}


class SeedData(NamedTuple):
    """The values in the paths of the pages, and the cookies of the users."""

    values: dict[str, str]
    cookies: dict[str, Any]


@pytest.fixture(scope="module")
def seed(running: Site, browser: Browser, smtp_server: SmtpServer) -> SeedData:
    smtp_server.reset()
    reader, operator = running.make_user(posts=3), running.make_user(posts=1)
    operator.is_operator = True
    export = operator.launch_task("export_posts", "Exporting your posts")
    values = {"reader": reader.username, "export": export.id} | add_readable_content(reader) | mail_links(reader)
    wait_for(lambda: smtp_server.messages, what="the mail arrives")
    wait_for(lambda: state_of(export.id) == "SUCCESS", what="the export ends")
    running.keep_mail(smtp_server.messages[0])
    wait_for(running.is_idle, what="the jobs of other tests end")
    add_jobs_of_every_kind(operator)
    cookies: dict[str, Any] = {"anonymous": None}
    for name, user in (("reader", reader), ("operator", operator)):
        page = new_context(browser).new_page()
        running.sign_in(page, user)
        page.goto(f"{running.url}/dev/mail")
        values["mail"] = str(page.locator("main table a").first.get_attribute("href"))
        cookies[name] = page.context.storage_state()
        page.context.close()
    return SeedData(values, cookies)


def add_readable_content(reader: User) -> dict[str, str]:
    """Create posts, a friend and messages with long words, and return the ids of two posts and a message."""
    post = Post(user_id=reader.id, body="W" * 140)
    foreign = Post(user_id=reader.id, body="Кто знает хорошую пекарню у старого вокзала?")
    friend = User(username="friend", email="friend@example.com", password_hash="", about_me="Rows.\n" + "W" * 200)
    friend.last_seen_at = utcnow()
    db.session.add_all([post, foreign, friend])
    db.session.flush()
    db.session.add_all(Follow(follower_id=a.id, followed_id=b.id) for a, b in ((reader, friend), (friend, reader)))
    for sender, recipient in ((friend, reader), (reader, friend), (friend, reader)):
        message = send_message(sender, recipient, "I row.\n" + "W" * 200)
    db.session.commit()
    return {"post": str(post.id), "foreign_post": str(foreign.id), "message": str(message.id)}


def mail_links(user: User) -> dict[str, str]:
    """Return the paths of the mailed links to set a new password and to confirm a new address."""
    change = EmailChange(user=user, old_address=user.email, new_address="a" * 60 + "@example.com")
    db.session.add(change)
    db.session.commit()
    mailed = {"reset_link": tokens.password_reset_url(user), "address_link": tokens.confirm_email_url(change)}
    return {name: urlsplit(url).path for name, url in mailed.items()}


def add_jobs_of_every_kind(user: User) -> None:
    now = utcnow()
    long = "The mail server refused: 554 5.7.1 " + "no" * 60
    add_job(user, "Cancelled", {"state": "REVOKED", "finished_at": now})
    add_job(user, "Failed " + "x" * 80, {"state": "FAILURE", "error": long, "finished_at": now})
    add_job(user, "Waiting", {"state": "PENDING"})
    add_job(user, "Cancelling", {"state": "STARTED", "started_at": now, "cancel_requested_at": now})
    progress = {"progress": 47, "current": 117_500, "total": 250_000, "message": "117,500 of 250,000 posts"}
    add_job(user, "Running", {"state": "PROGRESS", "started_at": now, **progress})
    retry = {"state": "RETRY", "error": long, "eta": now + timedelta(hours=1), "started_at": now}
    add_job(user, "Retrying", {"state": "SUCCESS"}, retry)


def add_job(user: User, title: str, *steps: dict[str, Any]) -> None:
    """Add the rows of a job without running it."""
    root_id = f"{title:.36}".replace(" ", "-")
    for position, columns in enumerate(steps):
        task_id = f"{root_id}-{position}" if position else root_id
        common: dict[str, Any] = {"root_id": root_id, "position": position, "user_id": user.id, "description": title}
        add_task(task_id, name=task_id, **common | columns)


@pytest.fixture(scope="module")
def page_of(browser: Browser, seed: SeedData) -> Iterator[Callable[[str], Page]]:
    """A function that returns the page of an anonymous visitor or a user: one for each."""
    contexts: list[BrowserContext] = []

    @cache
    def open_page(visitor: str) -> Page:
        contexts.append(new_context(browser, storage_state=seed.cookies[visitor]))
        return contexts[-1].new_page()

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize(
    ("visitor", "path"),
    [
        pytest.param(visitor, path, marks=() if (visitor, path) in IN_EACH_RUN else pytest.mark.exhaustive)
        for visitor, paths in PAGES.items()
        for path in paths
    ],
)
def test_page_has_no_problems(
    visitor: str, path: str, running: Site, seed: SeedData, page_of: Callable[[str], Page]
) -> None:
    problems = problems_of(page_of(visitor), running.url + path.format_map(seed.values), f"{visitor} {path}")

    assert problems == [], "\n".join(problems)


@pytest.mark.exhaustive
def test_screenshots_are_saved_if_folder_is_set(
    site: Site, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCREENSHOTS", str(tmp_path))
    page.goto(f"{site.url}/auth/login")

    assert visible_problems(page, "anonymous /auth/login") == []

    expected = {f"anonymous-auth-login-{width}-{theme}.png" for width in (1280, 390) for theme in ("light", "dark")}
    assert {picture.name for picture in tmp_path.iterdir()} == expected


def test_all_pages_are_checked(running: Site, seed: SeedData) -> None:
    urls = current_app.url_map.bind("127.0.0.1")
    paths = {urlsplit(path.format_map(seed.values)).path for paths in PAGES.values() for path in paths} - {"/nothing"}
    checked = {urls.match(path)[0] for path in paths}

    endpoints = {rule.endpoint for rule in current_app.url_map.iter_rules() if "GET" in (rule.methods or ())}
    pages = {name for name in endpoints if not name.endswith((".static", ".stream")) and not name.startswith("api")}

    assert pages - NO_PAGES == checked - {"api_docs.index"}


def test_job_card_shows_state_and_actions(
    site: Site, seed: SeedData, open_browser: Callable[..., BrowserContext]
) -> None:
    page = open_browser(storage_state=seed.cookies["operator"]).new_page()
    page.goto(f"{site.url}/tasks")

    cards = {
        card.get_by_role("heading").inner_text()[:12]: (
            card.locator(".job-state").inner_text(),
            [
                label.partition(":")[0].strip()
                for label in card.locator(".job-actions").get_by_role("button").all_inner_texts()
            ],
        )
        for card in page.locator("[data-job-list] .job").all()
    }

    assert cards == {
        "Exporting yo": ("Done", []),
        "Cancelled": ("Cancelled", ["Try again"]),
        "Failed xxxxx": ("Failed", ["Try again"]),
        "Waiting": ("Waiting", ["Cancel"]),
        "Cancelling": ("Cancelling…", []),
        "Running": ("Running", ["Cancel"]),
        "Retrying": ("Trying again soon", ["Cancel"]),
    }
    running = page.get_by_role("article", name="Running").get_by_role("progressbar")
    expect(running).to_have_attribute("aria-valuenow", "47")
    expect(running).to_have_attribute("aria-valuemax", "100")


@pytest.mark.exhaustive
def test_main_features_work_without_javascript(
    site: Site, open_browser: Callable[..., BrowserContext], smtp_server: SmtpServer
) -> None:
    user = site.make_user(posts=3)
    page = open_browser(java_script_enabled=False).new_page()
    site.sign_in(page, user)

    page.get_by_label("Say something").fill("Written by hand")
    page.get_by_role("button", name="Post").click()
    expect(page.locator(".post-body").first).to_have_text("Written by hand")
    page.get_by_role("searchbox", name="Search").fill("hand")
    page.keyboard.press("Enter")
    own = page.get_by_role("article").filter(has_text=user.username)
    own.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Written by hand")).to_have_count(0)
    page.goto(f"{site.url}/user/{site.make_user().username}")
    page.get_by_role("button", name="Follow").click()
    expect(page.get_by_role("button", name="Unfollow")).to_be_visible()
    page.get_by_role("link", name="Profile").click()
    page.get_by_role("button", name="Export your posts").click()
    wait_for(lambda: smtp_server.messages, what="the mail arrives")
    page.get_by_role("link", name="Tasks").click()

    expect(page.locator(".job-name")).to_have_text("Exporting your posts")
    assert PASSWORD not in page.content()
