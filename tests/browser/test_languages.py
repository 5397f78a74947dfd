"""Language and time zone of a user, on a screen of phone size."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from playwright.sync_api import BrowserContext, expect

from microblog.accounts.models import User
from microblog.extensions import db
from tests.browser.page_checks import overflow, take_screenshot
from tests.browser.site import Site

PHONE = {"width": 390, "height": 900}
PAGES = [
    *("/", "/search?q=Mars", "/messages", "/notifications/all", "/tasks", "/import", "/edit_profile", "/auth/logout"),
    *("/account", "/account/password", "/account/email", "/account/delete", "/account/delete/confirm"),
    *("/account/tokens", "/nothing", "/admin/tasks"),
]


@pytest.fixture
def operator(site: Site) -> User:
    """A user with every link in the navigation."""
    user = site.make_user(posts=2)
    user.is_operator = True
    db.session.commit()
    return user


@pytest.mark.exhaustive
def test_user_chooses_language_and_time_zone(
    site: Site, operator: User, open_browser: Callable[..., BrowserContext]
) -> None:
    page = open_browser(locale="es-MX", timezone_id="America/New_York", viewport=PHONE).new_page()
    page.goto(f"{site.url}/auth/login")
    expect(page.get_by_role("heading", name="Iniciar sesión")).to_be_visible()
    page.get_by_role("button", name="한국어").click()
    expect(page.get_by_role("heading", name="로그인")).to_be_visible()
    page.get_by_role("button", name="Español").click()
    site.sign_in(page, operator)
    expect(page.locator(".post time").last).to_have_text("1 ene 2026, 7:00 a.m.")

    page.goto(f"{site.url}/edit_profile")
    page.get_by_label("Idioma").select_option("Русский")
    page.get_by_label("Zona horaria").select_option("Asia/Seoul")
    page.get_by_role("button", name="Guardar").click()

    expect(page.locator(".alert")).to_have_text("Профиль сохранён.")
    expect(page.locator("html")).to_have_attribute("lang", "ru")
    expect(page.locator(".post time").last).to_have_text("1 янв. 2026 г., 21:00")


@pytest.mark.parametrize("language", ["es", "ko", "ru"])
@pytest.mark.exhaustive
def test_translated_pages_fit_phone_width(
    site: Site, operator: User, open_browser: Callable[..., BrowserContext], language: str
) -> None:
    page = open_browser(locale=language, viewport=PHONE).new_page()
    own = f"/user/{operator.username}"
    overflows = {}

    def visit(paths: Iterable[str]) -> None:
        for path in paths:
            page.goto(site.url + path)
            overflows[path] = overflow(page)
            take_screenshot(page, f"{language} {path.replace(own, '/user')}")

    visit(["/auth/login", "/auth/register", "/auth/reset_password_request"])
    site.sign_in(page, operator)
    visit([*PAGES, own, f"{own}/followers"])

    assert {path: problems for path, problems in overflows.items() if problems} == {}
