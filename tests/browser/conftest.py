"""Fixtures of the browser tests: Chromium and a running site."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.site import TIMEOUT, Site, new_context, running_site
from tests.browser.tasks import Dial
from tests.support import external
from tests.support.smtp import SmtpServer
from tests.support.translator import TranslationServer

# No sandbox, since Chromium may run as root in a container. No background requests to other hosts.
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


# Not session-scoped: while Playwright is open, its event loop occupies this thread and excludes any other.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    executable = external.CHROMIUM.require()
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=list(OPTIONS), timeout=TIMEOUT)
        yield chromium
        chromium.close()


@pytest.fixture
def open_browser(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """A function that opens a new browser context, whose pages share their cookies."""
    opened: list[BrowserContext] = []

    def open_one(**options: Any) -> BrowserContext:
        opened.append(new_context(browser, **options))
        return opened[-1]

    yield open_one
    for context in opened:
        context.close()


@pytest.fixture
def page(open_browser: Callable[..., BrowserContext]) -> Page:
    """An empty page in a new browser context."""
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
    translation = {"TRANSLATE_URL": translation_server.url, "TRANSLATE_TIMEOUT": "60"}
    with running_site(base_environment | translation, tmp_path_factory.mktemp("site"), request) as site:
        yield site


@pytest.fixture
def site(running: Site, smtp_server: SmtpServer) -> Site:
    """The site, with an empty mailbox. All browser tests share it, and each creates its own users."""
    smtp_server.reset()
    return running


@pytest.fixture
def dial(tmp_path: Path) -> Iterator[Dial]:
    """The dial of the test's job, turned to its end after the test."""
    dial = Dial(tmp_path / "dial")
    yield dial
    dial.turn_to(100)
