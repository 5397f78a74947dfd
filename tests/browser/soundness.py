"""What can be wrong with any page: broken, foreign, too wide, hard to read or to use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, Request

from tests.browser.keyboard import obstacles

WIDTHS = (1280, 390)  # CSS pixels
AXE_OPTIONS = {"resultTypes": ["violations"], "iframes": False}
NOT_OURS = {"exclude": ["#api-docs"]}  # Swagger UI: its faint colours and its buttons in buttons


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
    if page.url != url:
        problems.append(f"redirect: {page.url}")
    wait_until_filled(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        problems += overflow(page)
    problems += barriers(page) + obstacles(page)
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return problems


def wait_until_filled(page: Page) -> None:
    """Until what a script fetches for the page is on it."""
    if page.locator("#api-docs").count():
        page.locator(".opblock").first.wait_for()
    if page.locator("#house").count():
        page.locator("#house table").first.wait_for()


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
