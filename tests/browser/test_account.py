"""An account from registration to deletion, as its owner uses it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.site import Site
from tests.support.clients import PASSWORD
from tests.support.links import link_in
from tests.support.servers import wait_for
from tests.support.smtp import SmtpServer

NAME, OLD, NEW = "newcomer", "newcomer@example.com", "moved@example.com"
BETTER_PASSWORD = "horse-bird-cow"


@pytest.mark.exhaustive
def test_account_is_created_changed_and_deleted(site: Site, page: Page, smtp_server: SmtpServer) -> None:
    register(site, page)
    submit_login(page, PASSWORD)
    page.wait_for_url(f"{site.url}/")
    edit_profile(page)
    make_and_revoke_a_token(site, page)
    change_the_password(page)
    change_the_address(site, page, smtp_server)
    delete_the_account(page)

    submit_login(page, BETTER_PASSWORD)
    expect(alert(page)).to_have_text("The username or the password is wrong.")
    # The link to confirm the new address, the notice to the old address, and the notice of the deletion.
    wait_for(lambda: len(smtp_server.messages) == 3, what="the mails arrive")
    assert sorted(str(mail["To"]) for mail in smtp_server.messages) == [NEW, NEW, OLD]


def alert(page: Page) -> Locator:
    """Return the message at the top of the page."""
    return page.locator(".alert")


def fill(page: Page, **fields: str) -> None:
    """Fill in fields by their labels, with underscores for spaces."""
    for label, text in fields.items():
        page.get_by_label(label.replace("_", " "), exact=True).fill(text)


def register(site: Site, page: Page) -> None:
    page.goto(site.url)
    page.get_by_role("link", name="Make an account").click()
    fill(page, Username=NAME, Email=OLD, Password=PASSWORD, Password_again=PASSWORD)
    page.get_by_role("button", name="Register").click()
    expect(alert(page)).to_have_text(f"Welcome, {NAME}. Your account is ready: sign in.")


def submit_login(page: Page, password: str) -> None:
    fill(page, Username_or_email=NAME, Password=password)
    page.get_by_role("button", name="Sign in").click()


def edit_profile(page: Page) -> None:
    page.get_by_role("link", name="Profile").click()
    page.get_by_role("link", name="Edit profile").click()
    fill(page, About_me="Rows on Sundays.")
    page.get_by_role("button", name="Save").click()
    expect(alert(page)).to_have_text("Your profile is saved.")
    expect(page.locator(".profile-about")).to_have_text("Rows on Sundays.")


def make_and_revoke_a_token(site: Site, page: Page) -> None:
    page.get_by_role("link", name="Edit profile").click()
    page.get_by_role("link", name="Tokens for programs").click()
    fill(page, Name_of_a_new_token="Calendar")
    page.get_by_role("button", name="Make a token").click()
    token = page.get_by_label("Your new token").input_value()
    assert api_status(site, page, token) == 200
    page.get_by_role("button", name="Revoke Calendar").click()
    expect(page.get_by_text("You have no tokens.")).to_be_visible()
    assert api_status(site, page, token) == 401


def api_status(site: Site, page: Page, token: str) -> int:
    """Return the status of an API request with `token`."""
    return page.request.get(f"{site.url}/api/users/me", headers={"Authorization": f"Bearer {token}"}).status


def change_the_password(page: Page) -> None:
    page.get_by_role("link", name="Back to your profile").click()
    page.get_by_role("link", name="Password, mail address").click()
    page.get_by_role("link", name="Change the password").click()
    fill(page, Current_password=PASSWORD, New_password=BETTER_PASSWORD, New_password_again=BETTER_PASSWORD)
    page.get_by_role("button", name="Save").click()
    expect(alert(page)).to_contain_text("Your new password is set.")


def change_the_address(site: Site, page: Page, smtp_server: SmtpServer) -> None:
    page.get_by_role("link", name="Change the address").click()
    fill(page, Email=NEW, Current_password=BETTER_PASSWORD)
    page.get_by_role("button", name="Mail me a link").click()
    expect(page.get_by_text(f"{NEW} has yet to be confirmed")).to_be_visible()
    wait_for(lambda: smtp_server.messages, what="the mail arrives")
    page.goto(site.url + link_in(smtp_server.messages[0]))
    page.get_by_role("button", name="Yes, use this address").click()
    expect(alert(page)).to_have_text(f"Your mail address is now {NEW}.")


def delete_the_account(page: Page) -> None:
    page.get_by_role("link", name="Delete the account…").click()
    page.get_by_role("link", name="Go on to delete the account…").click()
    fill(page, Your_username=NAME, Current_password=BETTER_PASSWORD)
    page.get_by_role("button", name="Delete the account").click()
    expect(alert(page)).to_contain_text("Your account is closed")
