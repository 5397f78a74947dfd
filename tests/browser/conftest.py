"""Chromium, and a site for it to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.site import PATIENCE, Site, new_context, running_site
from tests.browser.tasks import Dial
from tests.support import external
from tests.support.smtp import SmtpServer
from tests.support.translator import TranslationServer

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


# Not for the whole session: while Playwright is open, its event loop runs in this thread, and no other can.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    executable = external.CHROMIUM.require()
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=list(OPTIONS), timeout=PATIENCE)
        yield chromium
        chromium.close()


@pytest.fixture
def open_browser(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Opens a browser that nobody has used yet; its pages share their cookies."""
    opened: list[BrowserContext] = []

    def open_one(**options: Any) -> BrowserContext:
        opened.append(new_context(browser, **options))
        return opened[-1]

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
    translating = {"TRANSLATE_URL": translation_server.url, "TRANSLATE_TIMEOUT": "60"}
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
