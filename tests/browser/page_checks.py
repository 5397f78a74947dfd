"""Checks that apply to any page: errors, foreign requests, overflow, accessibility and keyboard use.

If the environment variable SCREENSHOTS names a folder, full-page screenshots of the checked pages are saved there as
`name-width-theme.png`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import ConsoleMessage, Page, Request

from tests.browser.keyboard import keyboard_problems

WIDTHS = (1280, 390)  # CSS pixels
THEMES = ("light", "dark")
AXE_OPTIONS = {"resultTypes": ["violations"], "iframes": False}
# The rules whose result depends on the theme. The others are checked in one theme only.
COLOUR_RULES = {"runOnly": ["color-contrast", "link-in-text-block"]}
EXCLUDED = {"exclude": ["#api-docs"]}  # Swagger UI has low contrast and nested buttons


def problems_of(
    page: Page, url: str, name: str, act: Callable[[Page], None] | None = None, widths: Iterable[int] = WIDTHS
) -> list[str]:
    """Open `url`, call `act` on the page, and return a line for each problem found."""
    problems: list[str] = []

    def record_message(message: ConsoleMessage) -> None:
        # The console also reports an error status of the page itself, which may be intended.
        if message.type in ("error", "warning") and message.location["url"] != url:
            problems.append(f"console: {message.text}")

    def record_request(request: Request) -> None:
        if urlsplit(request.url).netloc not in (urlsplit(url).netloc, ""):
            problems.append(f"request: {request.url}")

    listeners: dict[Any, Callable[..., None]] = {
        "console": record_message,
        "pageerror": lambda error: problems.append(f"script: {error}"),
        "request": record_request,
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(url)
    if act:
        act(page)
    if page.url != url:
        problems.append(f"redirect: {page.url}")
    wait_until_filled(page)
    problems += visible_problems(page, name, widths) + check_keyboard(page, widths)
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return problems


def wait_until_filled(page: Page) -> None:
    """Wait until the parts of the page that a script fetches are shown."""
    if page.locator("#api-docs").count():
        page.locator(".opblock").first.wait_for()
    if page.locator("#system-status").count():
        page.locator("#system-status table").first.wait_for()


def visible_problems(page: Page, name: str, widths: Iterable[int] = WIDTHS) -> list[str]:
    """Return the visible problems of the current page, at each of `widths` and in each theme. Take screenshots."""
    problems = []
    for width in widths:
        for theme in THEMES:
            show(page, width, theme)
            take_screenshot(page, name)
            options = AXE_OPTIONS if theme == THEMES[0] else AXE_OPTIONS | COLOUR_RULES
            problems += [
                f"{width} px, {theme}: {problem}" for problem in overflow(page) + accessibility_problems(page, options)
            ]
    return problems


def check_keyboard(page: Page, widths: Iterable[int]) -> list[str]:
    """Return the problems of a user without a mouse, with one theme for each of `widths`."""
    problems = []
    page.route("**/popup", lambda _route: None)  # a user card that opens on focus would add stops
    for width, theme in zip(widths, THEMES, strict=False):
        show(page, width, theme)
        problems += [f"{width} px, {theme}: {problem}" for problem in keyboard_problems(page)]
    page.unroute("**/popup")
    return problems


def show(page: Page, width: int, theme: Any) -> None:
    """Set the width and theme of the page, without colour transitions."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.wait_for_function("theme => document.documentElement.dataset.bsTheme === theme", arg=theme)


def take_screenshot(page: Page, name: str) -> None:
    """Take a screenshot of the page if SCREENSHOTS is set."""
    if folder := os.environ.get("SCREENSHOTS"):
        width, theme = page.evaluate("[innerWidth, document.documentElement.dataset.bsTheme]")
        slug = re.sub(r"\W+", "-", name).strip("-")
        page.screenshot(path=Path(folder) / f"{slug}-{width}-{theme}.png", full_page=True)


def overflow(page: Page) -> list[str]:
    """Return a problem if the page must be scrolled horizontally."""
    needed, available = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return [f"overflow: {needed} px on {available}"] if needed > available else []


def accessibility_problems(page: Page, options: dict[str, Any]) -> list[str]:
    """Return the serious accessibility problems that axe-core finds with `options`."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    violations = page.evaluate("([context, options]) => axe.run(context, options)", [EXCLUDED, options])["violations"]
    return [
        f"axe: {violation['id']} ({violation['impact']}): {node['target']}"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
