"""From a forgotten password to a new one, by way of the mailbox."""

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
def test_who_forgot_the_password_sets_a_new_one_and_is_signed_out_elsewhere(
    site: Site, page: Page, open_browser: Callable[..., BrowserContext], smtp_server: SmtpServer
) -> None:
    user = site.make_user()
    elsewhere = open_browser().new_page()
    site.sign_in(elsewhere, user)

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
    elsewhere.goto(f"{site.url}/")
    elsewhere.wait_for_url(f"{site.url}/auth/login")
