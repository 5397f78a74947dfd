"""What can be wrong with any page: broken, foreign, too wide, hard to read or to use.

With a folder named by SCREENSHOTS in the environment, whatever is looked at is also kept there as pictures of whole
pages: `name-width-theme.png`.
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

from tests.browser.keyboard import obstacles

WIDTHS = (1280, 390)  # CSS pixels
THEMES = ("light", "dark")
AXE_OPTIONS = {"resultTypes": ["violations"], "iframes": False}
# All that the themes differ in: the other one need not be asked the rest.
OF_COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}
NOT_OURS = {"exclude": ["#api-docs"]}  # Swagger UI: its faint colours and its buttons in buttons


def problems_of(
    page: Page, url: str, name: str, act: Callable[[Page], None] | None = None, widths: Iterable[int] = WIDTHS
) -> list[str]:
    """What is wrong with the page at `url`, once `act` has done something on it: a line for each."""
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
    if act:
        act(page)
    if page.url != url:
        problems.append(f"redirect: {page.url}")
    wait_until_filled(page)
    problems += faults_in(page, name, widths) + walk(page, widths)
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return problems


def wait_until_filled(page: Page) -> None:
    """Until what a script fetches for the page is on it."""
    if page.locator("#api-docs").count():
        page.locator(".opblock").first.wait_for()
    if page.locator("#system-status").count():
        page.locator("#system-status table").first.wait_for()


def faults_in(page: Page, name: str, widths: Iterable[int] = WIDTHS) -> list[str]:
    """What is wrong to the eye with the page as it stands, at each of `widths` and in each theme; pictures of it."""
    problems = []
    for width in widths:
        for theme in THEMES:
            show(page, width, theme)
            photograph(page, name)
            options = AXE_OPTIONS if theme == THEMES[0] else AXE_OPTIONS | OF_COLOURS
            problems += [f"{width} px, {theme}: {fault}" for fault in overflow(page) + barriers(page, options)]
    return problems


def walk(page: Page, widths: Iterable[int]) -> list[str]:
    """What keeps somebody who has no mouse from using the page, at each of `widths`, of two in a theme each."""
    problems = []
    page.route("**/popup", lambda _route: None)  # a card that comes as a name has the focus would be on the way
    for width, theme in zip(widths, THEMES, strict=False):
        show(page, width, theme)
        problems += [f"{width} px, {theme}: {obstacle}" for obstacle in obstacles(page)]
    page.unroute("**/popup")
    return problems


def show(page: Page, width: int, theme: Any) -> None:
    """The page at a width and in a theme; nothing on it is on its way from one colour to another."""
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.wait_for_function("theme => document.documentElement.dataset.bsTheme === theme", arg=theme)


def photograph(page: Page, name: str) -> None:
    """Keep a picture of the page, if pictures are wanted."""
    if folder := os.environ.get("SCREENSHOTS"):
        width, theme = page.evaluate("[innerWidth, document.documentElement.dataset.bsTheme]")
        slug = re.sub(r"\W+", "-", name).strip("-")
        page.screenshot(path=Path(folder) / f"{slug}-{width}-{theme}.png", full_page=True)


def overflow(page: Page) -> list[str]:
    """Whether the page must be moved sideways to be read."""
    wanted, there = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return [f"overflow: {wanted} px on {there}"] if wanted > there else []


def barriers(page: Page, options: dict[str, Any]) -> list[str]:
    """What keeps somebody from using the page, as axe-core finds it with `options`."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found = page.evaluate("([context, options]) => axe.run(context, options)", [NOT_OURS, options])["violations"]
    return [
        f"axe: {one['id']} ({one['impact']}): {node['target']}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
