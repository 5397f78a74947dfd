"""From a fresh copy of the project and `make run` to an archive of all posts by mail, as a user sees it."""

from __future__ import annotations

import contextlib
import json
import mailbox
import os
import re
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from microblog.development.process_manager import ManagedProcess
from tests.integration.test_run import TIME_TO_END, descendants, is_running
from tests.mutants.tree import LEFT_OUT
from tests.support.programs import ROOT
from tests.support.servers import TIMEOUT, free_port

MANY = 100_000  # posts; too many to export within one SLICE on any machine
SLICE = 0.05  # seconds that the worker runs at a time until the page shows progress
DEMO_POSTS = 250
BEGUN = re.compile(r"^[1-9]\d?$")  # percent, neither 0 nor 100
# Records the content of the job cards whenever the page changes.
WATCH_CARDS = """
addEventListener("DOMContentLoaded", () => {
  window.seen = [];
  const look = () => document.querySelectorAll(".job").forEach((card) => {
    const text = (part) => card.querySelector(part)?.textContent ?? "";
    const bar = card.querySelector(".job-bar")?.value ?? null;
    window.seen.push({ job: card.dataset.job, state: text(".job-state"), step: text(".job-step"), bar });
  });
  new MutationObserver(look).observe(document, { subtree: true, childList: true, attributes: true });
  look();
});
"""


@dataclass
class Tree:
    """A copy of the project, and `make run` in it."""

    folder: Path
    port: int
    process: ManagedProcess

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def instance(self) -> Path:
        return self.folder / "instance"

    def mails(self) -> list[mailbox.MaildirMessage]:
        """Return the received mails in order of arrival."""
        maildir = mailbox.Maildir(self.instance / "mail")
        return [maildir[key] for key in sorted(maildir.keys(), key=arrival)]

    @contextlib.contextmanager
    def halted(self, *arguments: str) -> Iterator[Callable[[float], None]]:
        """Suspend the programs of the tree whose command lines contain all `arguments` during the block.

        Yield a function that lets them run for some seconds.
        """
        pids = [pid for pid in descendants(self.process.pid) if set(arguments) <= set(arguments_of(pid))]
        assert pids

        def send(number: signal.Signals) -> None:
            for pid in pids:
                os.kill(pid, number)

        def run_for(seconds: float) -> None:
            send(signal.SIGCONT)
            time.sleep(seconds)
            send(signal.SIGSTOP)

        try:
            send(signal.SIGSTOP)
            yield run_for
        finally:
            send(signal.SIGCONT)


def arguments_of(pid: int) -> list[str]:
    """Return the command line of a process, or an empty list if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def arrival(key: str) -> list[int]:
    """Return the seconds and microseconds of arrival, with which a Maildir key begins."""
    return [int(number) for number in re.findall(r"\d+", key)[:2]]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """`make run` in a copy of the project, with an empty HOME and the packages of the tests' environment."""
    folder, home = tmp_path / "microblog", tmp_path / "home"
    home.mkdir()
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT, symlinks=True)
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PORT": str(port)}
    environment["EXPORT_ATTACHMENT_LIMIT"] = str(32 * 1024 * 1024)  # large archives are attached as well
    # Long timeouts, so that a suspended program does not count as unavailable.
    environment |= {"MAIL_TIMEOUT": "600", "REDIS_TIMEOUT": "60", "TASK_LEASE": "600"}
    output = tmp_path / "output"
    process = ManagedProcess(["make", "run", f"VENV={sys.prefix}"], environment, stdout=output, folder=folder)
    process.kill_signal = signal.SIGTERM
    try:
        process.wait_until(lambda: "Microblog is ready" in output.read_text(), "make run", 2 * TIMEOUT)
        yield Tree(folder, port, process)
    finally:
        process.stop(TIMEOUT)


@pytest.mark.timeout(900)  # the test waits several times
def test_export_is_shown_live_downloaded_and_mailed(
    tree: Tree, open_browser: Callable[..., BrowserContext], tmp_path: Path
) -> None:
    context = open_browser(accept_downloads=True)
    context.add_init_script(WATCH_CARDS)
    page = context.new_page()
    sign_in_as_demo(page, tree)

    card = export(page)
    expect(card.locator(".job-state")).to_have_text("Done")

    posts = check_archive(download(card, tmp_path), tree.mails())
    assert len(posts) == DEMO_POSTS
    check_mail_page(page, tree)

    write_many_posts(tree)
    page.goto(f"{tree.url}/user/demo")
    # Suspend each step until the page has shown it, so that a slow browser does not miss it.
    with tree.halted("microblog.development.smtp_server"):
        with tree.halted("celery_app", "worker") as run_for:
            card = export(page)
            while not BEGUN.match(card.get_by_role("progressbar").get_attribute("aria-valuenow") or ""):
                expect(card.locator(".job-state")).not_to_have_text("Done")
                run_for(SLICE)
                page.wait_for_timeout(10 * SLICE * 1000)
        expect(card.locator(".job-step")).to_contain_text("Step 2 of 2")
    expect(card.locator(".job-state")).to_have_text("Done")

    check_progress(recorded_states(card))
    assert len(check_archive(download(card, tmp_path), tree.mails())) == DEMO_POSTS + MANY

    check_shutdown(tree)


def sign_in_as_demo(page: Page, tree: Tree) -> None:
    page.goto(tree.url)
    page.get_by_label("Username or email").fill("demo")
    page.get_by_label("Password").fill("demo")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Profile").click()


def export(page: Page) -> Locator:
    """Start an export by its button and return the card of the job."""
    previous = {card.get_attribute("data-job") for card in page.locator(".job").all()}
    page.get_by_role("button", name="Export your posts").click()
    expect(page.get_by_text("Your export has started")).to_be_visible()
    [new] = {card.get_attribute("data-job") for card in page.locator(".job").all()} - previous
    return page.locator(f'[data-job="{new}"]')


def download(card: Locator, folder: Path) -> bytes:
    with card.page.expect_download() as started:
        card.get_by_role("link", name="Download").click()
    path = folder / "downloaded"
    started.value.save_as(path)
    assert started.value.suggested_filename == "posts.json"
    return path.read_bytes()


def check_archive(downloaded: bytes, mails: list[mailbox.MaildirMessage]) -> list[dict[str, str]]:
    """Check that the download equals the attachment of the last mail and lists the posts oldest first. Return them."""
    mail = mails[-1]
    assert mail["Subject"] == "[Microblog] Your blog posts"
    assert mail["To"] == "demo@example.com"
    [attached] = [part for part in mail.walk() if part.get_filename() == "posts.json"]
    assert attached.get_payload(decode=True) == downloaded
    posts: list[dict[str, str]] = json.loads(downloaded)["posts"]
    assert all(post.keys() == {"body", "timestamp"} and post["timestamp"].endswith("Z") for post in posts)
    assert [post["timestamp"] for post in posts] == sorted(post["timestamp"] for post in posts)
    return posts


def check_mail_page(page: Page, tree: Tree) -> None:
    page.goto(f"{tree.url}/dev/mail")
    page.get_by_role("link", name="[Microblog] Your blog posts").click()
    expect(page.get_by_role("link", name="posts.json")).to_be_visible()
    mail_body = page.frame_locator("iframe").locator("body")
    expect(mail_body).to_contain_text("demo")


def write_many_posts(tree: Tree) -> None:
    """Insert ``MANY`` posts of the user demo."""
    with sqlite3.connect(tree.instance / "microblog.db", timeout=TIMEOUT) as database:
        database.execute(
            "INSERT INTO post (body, timestamp, user_id)"
            " SELECT value, datetime('2000-01-01', value || ' seconds') || '.000000', user.id"
            " FROM (WITH RECURSIVE counter(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM counter WHERE value < ?)"
            " SELECT value FROM counter), user WHERE username = 'demo'",
            [MANY],
        )
    database.close()


def recorded_states(card: Locator) -> list[dict[str, Any]]:
    """Return the recorded contents of the card since its page was loaded."""
    job = card.get_attribute("data-job")
    return [entry for entry in card.page.evaluate("window.seen") if entry["job"] == job]


def check_progress(states: list[dict[str, Any]]) -> None:
    """Check that one page load has shown both steps, and a moving bar in the first."""
    steps = [entry["step"].partition(":")[0] for entry in states if entry["step"]]
    assert list(dict.fromkeys(steps)) == ["Step 1 of 2", "Step 2 of 2"]
    bars = [entry["bar"] for entry in states if entry["step"].startswith("Step 1 of 2")]
    assert bars == sorted(bars)
    assert any(0 < bar < 100 for bar in bars)
    assert states[-1]["state"] == "Done"


def check_shutdown(tree: Tree) -> None:
    processes = descendants(tree.process.pid)
    assert len(processes) > 5
    signalled_at = time.monotonic()

    tree.process.send_signal(signal.SIGTERM)
    tree.process.wait(timeout=TIMEOUT)

    assert time.monotonic() - signalled_at < TIME_TO_END
    assert [pid for pid in processes if is_running(pid)] == []
