"""Importing posts as a user: choose a file, follow the progress, read the list of refused entries."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.page_checks import visible_problems
from tests.browser.site import BEGINNING, Site

POSTS = 5_000


@pytest.mark.exhaustive
def test_import_shows_progress_and_refused_entries(
    site: Site, open_browser: Callable[..., BrowserContext], tmp_path: Path
) -> None:
    page = open_browser().new_page()
    site.sign_in(page, site.make_user())
    file = tmp_path / "posts.json"
    posts = [{"body": f"Memory {n}", "timestamp": (BEGINNING + timedelta(seconds=n)).isoformat()} for n in range(POSTS)]
    posts[1] |= {"body": "x" * 300}
    posts[2] |= {"timestamp": "yesterday"}
    file.write_text(json.dumps({"posts": posts}, indent=1))

    page.get_by_role("link", name="Profile").click()
    page.get_by_role("link", name="Import posts").click()
    page.get_by_label("File").set_input_files(file)
    card = page.get_by_role("article", name="Importing your posts")
    with site.holding_imports():
        page.get_by_role("button", name="Import").click()
        expect(card.get_by_role("progressbar")).to_be_visible()
    expect(card).to_contain_text("4,998 posts imported")
    card.get_by_text("2 posts could not be imported").click()
    expect(card.get_by_role("listitem").filter(has_text="It has 300 characters")).to_contain_text("Line 7:")
    expect(card).to_contain_text("Its time is not one")
    with page.expect_download() as started:
        card.get_by_role("link", name="Download the list of what could not be imported").click()
    assert started.value.suggested_filename == "refusals.csv"
    assert len(started.value.path().read_text().splitlines()) == 3
    assert visible_problems(page, "tasks with an import") == []
    page.get_by_role("link", name="Profile").click()
    expect(page.locator(".post-body").first).to_have_text(f"Memory {POSTS - 1}")


@pytest.mark.exhaustive
def test_too_large_file_is_refused_before_upload(
    site: Site, open_browser: Callable[..., BrowserContext], tmp_path: Path
) -> None:
    page = open_browser().new_page()
    site.sign_in(page, site.make_user())
    file = tmp_path / "posts.json"
    with file.open("wb") as huge:
        huge.truncate(257 * 1024 * 1024)
    page.goto(f"{site.url}/import")

    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Import").click()

    assert page.url == f"{site.url}/import"
    assert page.get_by_label("File").evaluate("field => field.validationMessage") == "This file is too large."
