"""Every page about one's own account, as test_pages.py looks at all others."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext

from microblog.accounts import links
from microblog.accounts.email_change import EmailChange
from microblog.accounts.models import User
from microblog.extensions import db
from tests.browser.site import Site
from tests.browser.test_pages import problems_of

PAGES = ["/account", "/account/password", "/account/email", "/account/delete", "/account/delete/confirm"]


def mailed_links(user: User) -> list[str]:
    """The paths to set a new password and to confirm a new address."""
    change = EmailChange(user=user, old_address=user.email, new_address="a" * 60 + "@example.com")
    db.session.add(change)
    db.session.commit()
    return [urlsplit(url).path for url in (links.to_reset_password(user), links.to_confirm_address(change))]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_of_an_account_is_sound(theme: str, site: Site, open_browser: Callable[..., BrowserContext]) -> None:
    user = site.make_user()
    nobody = open_browser(color_scheme=theme).new_page()
    somebody = open_browser(color_scheme=theme).new_page()
    site.sign_in(somebody, user)

    problems = [
        f"{path}: {problem}"
        for page, paths in (
            (nobody, ["/auth/reset_password_request", *mailed_links(user)]),
            (somebody, PAGES),
        )
        for path in paths
        for problem in problems_of(page, site.url + path)
    ]

    assert problems == [], "\n".join(problems)
