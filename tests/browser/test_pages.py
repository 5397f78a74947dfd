"""Every page, on a wide and on a narrow screen, in light and in dark: nothing broken, nothing foreign, all readable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect

from microblog.accounts.models import Follow, User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.messages import correspondence
from microblog.posts.models import Post
from microblog.taskqueue.models import Task
from tests.browser.site import PASSWORD, Site
from tests.support.services import wait_for
from tests.support.smtp import SmtpServer

WIDTHS = (1280, 390)  # CSS pixels
AXE_OPTIONS = {"resultTypes": ["violations"], "iframes": False}
NOT_OURS = {"exclude": ["#api-docs"]}  # Swagger UI: its faint colours and its buttons in buttons


class Reader(NamedTuple):
    """An operator with jobs of every kind, a mail, and the cookies of a browser in which they are signed in."""

    user: User
    cookies: Any
    mail_path: str
    export_id: str
    post_id: int
    foreign_post_id: int

    @property
    def pages(self) -> list[str]:
        """The pages about the reader, and about somebody whom they follow."""
        own = f"/user/{self.user.username}"
        lists = [own, f"{own}/followers", f"{own}/following", "/edit_profile", "/user/friend", "/user/friend/popup"]
        posts = [f"/post/{self.post_id}", f"/post/{self.post_id}/delete", f"/posts/{self.foreign_post_id}/translation"]
        letters = ["/messages", "/messages/sent", "/send_message/friend", "/notifications/all"]
        return [*lists, *posts, *letters, "/account/tokens"]


@pytest.fixture(scope="module")
def reader(running: Site, browser: Browser, smtp_server: SmtpServer) -> Iterator[Reader]:
    smtp_server.reset()
    user = running.make_user(posts=3)
    user.is_operator = True
    post = Post(user_id=user.id, body="W" * 140)
    foreign = Post(user_id=user.id, body="Кто знает хорошую пекарню у старого вокзала?")
    db.session.add_all([post, foreign])
    friend = User(username="friend", email="friend@example.com", password_hash="", about_me="Rows.\n" + "W" * 200)
    friend.last_seen_at = utcnow()
    db.session.add(friend)
    db.session.flush()
    db.session.add_all(
        [Follow(follower_id=user.id, followed_id=friend.id), Follow(follower_id=friend.id, followed_id=user.id)]
    )
    for sender, recipient in ((friend, user), (user, friend), (friend, user)):
        correspondence.send(sender, recipient, "I row.\n" + "W" * 200)
    export = user.launch_task("export_posts", "Exporting your posts")
    db.session.commit()
    wait_for(lambda: smtp_server.messages, what="the mail arrives")
    wait_for(lambda: running.state_of(export.id) == "SUCCESS", what="the export ends")
    running.keep_mail(smtp_server.messages[0])
    add_jobs_of_every_kind(user)
    page = browser.new_page()
    running.sign_in(page, user)
    page.goto(f"{running.url}/dev/mail")
    mail_path = page.locator("main table a").first.get_attribute("href")
    assert mail_path is not None
    yield Reader(user, page.context.storage_state(), mail_path, export.id, post.id, foreign.id)
    page.context.close()


def add_jobs_of_every_kind(user: User) -> None:
    now = utcnow()
    long = "The mail server refused: 554 5.7.1 " + "no" * 60
    add_job(user, "Cancelled", {"state": "REVOKED", "finished_at": now})
    add_job(user, "Failed " + "x" * 80, {"state": "FAILURE", "error": long, "finished_at": now})
    add_job(user, "Waiting", {"state": "PENDING"})
    add_job(user, "Cancelling", {"state": "STARTED", "started_at": now, "cancel_requested_at": now})
    counted = {"progress": 47, "current": 117_500, "total": 250_000, "message": "117,500 of 250,000 posts"}
    add_job(user, "Running", {"state": "PROGRESS", "started_at": now, **counted})
    again = {"state": "RETRY", "error": long, "eta": now + timedelta(hours=1), "started_at": now}
    add_job(user, "Retrying", {"state": "SUCCESS"}, again)
    db.session.commit()


def add_job(user: User, title: str, *steps: dict[str, Any]) -> None:
    """A job as it stands, with no worker behind it."""
    root_id = f"{title:.36}"
    for position, facts in enumerate(steps):
        task_id = root_id if position == 0 else f"{root_id}-{position}"
        fixed: dict[str, Any] = {"queue": "default", "signature": {}, "user_id": user.id, "position": position}
        db.session.add(Task(id=task_id, root_id=root_id, name=task_id, description=title, **fixed, **facts))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_sound(
    theme: str, site: Site, reader: Reader, open_browser: Callable[..., BrowserContext]
) -> None:
    nobody = open_browser(color_scheme=theme).new_page()
    somebody = open_browser(color_scheme=theme, storage_state=reader.cookies).new_page()

    problems = [
        f"{path}: {problem}"
        for page, paths in (
            (nobody, ["/auth/login", "/auth/register", "/api/docs", "/nothing"]),
            (
                somebody,
                [
                    *reader.pages,
                    "/",
                    "/explore",
                    "/search?q=thought",
                    "/tasks",
                    "/auth/logout",
                    "/dev/mail",
                    reader.mail_path,
                ],
            ),
            (somebody, ["/import"]),
            (somebody, ["/admin/tasks", "/admin/tasks?user=nobody", "/admin/tasks?state=retry", "/admin/status"]),
            (somebody, [f"/admin/tasks/{reader.export_id}", "/admin/tasks/Retrying", "/admin/tasks/all/cancel"]),
        )
        for path in paths
        for problem in problems_of(page, site.url + path)
    ]

    assert problems == [], "\n".join(problems)


def problems_of(page: Page, url: str) -> list[str]:
    """What is wrong with the page at `url`, a line for each."""
    problems: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        # That the page itself is an error is no error of the page.
        if message.type in ("error", "warning") and message.location["url"] != url:
            problems.append(f"console: {message.text}")

    def see(request: Request) -> None:
        if urlsplit(request.url).netloc not in (urlsplit(url).netloc, ""):
            problems.append(f"request: {request.url}")

    listeners: dict[Any, Callable[..., None]] = {
        "console": hear,
        "pageerror": lambda error: problems.append(f"script: {error}"),
        "request": see,
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(url)
    if url.endswith("/api/docs"):
        page.locator(".opblock").first.wait_for()
    if page.locator("#house").count():
        page.locator("#house table").first.wait_for()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        problems += overflow(page)
    problems += barriers(page)
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return problems


def overflow(page: Page) -> list[str]:
    """Whether the page must be moved sideways to be read."""
    wanted, there = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return [f"overflow: {wanted} px on {there}"] if wanted > there else []


def barriers(page: Page) -> list[str]:
    """What keeps somebody from using the page, as axe-core finds it."""
    found = Axe().run(page, NOT_OURS, AXE_OPTIONS).response["violations"]
    return [
        f"axe: {one['id']} ({one['impact']}): {node['target']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def test_each_kind_of_job_has_its_words_and_its_buttons(
    site: Site, reader: Reader, open_browser: Callable[..., BrowserContext]
) -> None:
    page = open_browser(storage_state=reader.cookies).new_page()
    page.goto(f"{site.url}/tasks")

    shown = {
        card.get_by_role("heading").inner_text()[:12]: (
            card.locator(".job-state").inner_text(),
            [
                label.partition(":")[0].strip()
                for label in card.locator(".job-actions").get_by_role("button").all_inner_texts()
            ],
        )
        for card in page.locator("[data-all-jobs] .job").all()
    }

    assert shown == {
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


def test_without_javascript_everything_can_still_be_done(
    site: Site, open_browser: Callable[..., BrowserContext], smtp_server: SmtpServer
) -> None:
    user = site.make_user(posts=3)
    page = open_browser(java_script_enabled=False).new_page()
    site.sign_in(page, user)

    page.get_by_label("Say something").fill("Written by hand")
    page.get_by_role("button", name="Post").click()
    expect(page.locator(".post-body").first).to_have_text("Written by hand")
    page.get_by_role("link", name="Profile").click()
    page.get_by_role("button", name="Export your posts").click()
    wait_for(lambda: smtp_server.messages, what="the mail arrives")
    page.get_by_role("link", name="Tasks").click()

    expect(page.locator(".job-name")).to_have_text("Exporting your posts")
    assert PASSWORD not in page.content()
