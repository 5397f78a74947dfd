"""Resetting a forgotten password by a mailed link."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.site import Site
from tests.support.links import link_in
from tests.support.servers import wait_for
from tests.support.smtp import SmtpServer

NEW = "horse-bird-cow"


@pytest.mark.exhaustive
def test_password_reset_signs_out_other_browsers(
    site: Site, page: Page, open_browser: Callable[..., BrowserContext], smtp_server: SmtpServer
) -> None:
    user = site.make_user()
    other_page = open_browser().new_page()
    site.sign_in(other_page, user)

    page.goto(f"{site.url}/auth/login")
    page.get_by_role("link", name="Forgot your password?").click()
    page.get_by_label("Email").fill(user.email)
    page.get_by_label("Email").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("a mail with a link is on its way")

    wait_for(lambda: smtp_server.messages, what="the mail arrives")
    page.goto(site.url + link_in(smtp_server.messages[0]))
    page.get_by_label("Password", exact=True).fill(NEW)
    page.get_by_label("Password again").fill(NEW)
    page.get_by_role("button", name="Set the password").click()
    expect(page.get_by_role("status")).to_contain_text("Your new password is set.")

    page.get_by_label("Username or email").fill(user.username)
    page.get_by_label("Password").fill(NEW)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{site.url}/")
    other_page.goto(f"{site.url}/")
    other_page.wait_for_url(f"{site.url}/auth/login")
