"""Chromium, and a site for it to look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.site import Site, running_site
from tests.browser.tasks import Dial
from tests.support.smtp import SmtpServer
from tests.support.translator import TranslationServer

# The first is the same browser without its windows: it leaves more of the machine to the rest of the house.
NAMES = (
    *("chromium-headless-shell", "chromium", "chromium-browser"),
    *("google-chrome", "google-chrome-stable", "chrome"),
)
# No sandbox, since it may run as root in a container; nothing that asks the world outside.
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 15_000  # milliseconds that a page has to come to what is expected of it


# Not for the whole session: while Playwright is open, its event loop runs in this thread, and no other can.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed")
        pytest.skip("Chromium is not installed: what only a browser shows is left out")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=list(OPTIONS))
        yield chromium
        chromium.close()


@pytest.fixture
def open_browser(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Opens a browser that nobody has used yet; its pages share their cookies."""
    opened: list[BrowserContext] = []

    def open_one(**options: Any) -> BrowserContext:
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE)
        opened.append(context)
        return context

    yield open_one
    for context in opened:
        context.close()


@pytest.fixture
def page(open_browser: Callable[..., BrowserContext]) -> Page:
    """An empty page of a new browser."""
    return open_browser().new_page()


@pytest.fixture(scope="package")
def translation_server() -> Iterator[TranslationServer]:
    server = TranslationServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="package")
def running(
    base_environment: dict[str, str],
    translation_server: TranslationServer,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Site]:
    translating = {"TRANSLATE_URL": translation_server.url, "TRANSLATE_TIMEOUT": "20"}
    with running_site(base_environment | translating, tmp_path_factory.mktemp("site"), request) as site:
        yield site


@pytest.fixture
def site(running: Site, smtp_server: SmtpServer) -> Site:
    """The site, shared by all tests here (each makes users of its own); its mailbox is empty."""
    smtp_server.reset()
    return running


@pytest.fixture
def dial(tmp_path: Path) -> Iterator[Dial]:
    """How far the test's job may go; to its end when the test is over."""
    dial = Dial(tmp_path / "dial")
    yield dial
    dial.turn_to(100)
