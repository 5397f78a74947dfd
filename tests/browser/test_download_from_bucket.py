"""An archive in a bucket, with gunicorn, a worker and a browser: from the form to the downloaded file, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.site import Site, new_context, running_site
from tests.support.bucket import BucketServer
from tests.support.clients import PASSWORD
from tests.support.links import link_in
from tests.support.servers import wait_for
from tests.support.smtp import SmtpServer

pytestmark = pytest.mark.exhaustive


@pytest.fixture
def site_with_bucket(
    base_environment: dict[str, str], bucket_server: BucketServer, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Site]:
    """A site that stores its files in a bucket, and mails every archive as a link."""
    environment = base_environment | bucket_server.environment | {"EXPORT_ATTACHMENT_LIMIT": "10"}
    with running_site(environment, tmp_path, request) as site:
        yield site


def test_archive_is_downloaded_after_sign_in_and_imported(
    site_with_bucket: Site, browser: Browser, smtp_server: SmtpServer
) -> None:
    site = site_with_bucket
    smtp_server.reset()
    user = site.make_user(posts=5)
    page = new_context(browser).new_page()
    site.sign_in(page, user)
    page.goto(f"{site.url}/user/{user.username}")
    page.locator("form[action='/export_posts'] button").click()
    [message] = wait_for(lambda: smtp_server.messages, what="the mail")

    visitor = new_context(browser).new_page()
    visitor.goto(site.url + link_in(message))
    visitor.locator("#username").fill(user.username)
    visitor.locator("#password").fill(PASSWORD)
    with visitor.expect_download() as downloaded:
        visitor.locator("main button[type=submit]").first.click()

    path = downloaded.value.path()
    assert downloaded.value.suggested_filename == "posts.json"
    assert len(json.loads(path.read_text())["posts"]) == 5
    page.goto(f"{site.url}/import")
    page.locator("input[type=file]").set_input_files(
        {"name": "posts.json", "mimeType": "", "buffer": path.read_bytes()}
    )
    page.locator("main form button[type=submit]").click()
    expect(page.get_by_text("5 posts were here already")).to_be_visible()
