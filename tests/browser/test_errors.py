"""Error pages and forms with errors pass the same checks as all other pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from microblog.accounts import tokens
from microblog.accounts.models import User
from tests.browser.page_checks import problems_of
from tests.browser.site import Site, new_context

CODES = [400, 401, 403, 404, 413, 429, 500, 503]
LONG = "W" * 300
# Paths with the text for each field of the page's first form, empty or too long. The names in braces are keys of the
# fixture `path_values`.
REFUSED = [
    *[(path, "") for path in ("/auth/login", "/auth/register", "/auth/reset_password_request", "{reset_link}")],
    *[(path, LONG) for path in ("/", "/edit_profile", "/account/tokens")],
    *[(path, "") for path in ("/send_message/{friend}", "/import", "/account/password", "/account/email")],
    ("/account/delete/confirm", ""),
]
ANONYMOUS_ONLY = ("/auth", "{reset_link}")  # pages for users who are not signed in


@pytest.fixture(scope="module")
def reader(running: Site) -> User:
    return running.make_user(posts=1)


@pytest.fixture(scope="module")
def path_values(running: Site, reader: User) -> dict[str, str]:
    reset_link = urlsplit(tokens.password_reset_url(reader)).path
    return {"friend": running.make_user().username, "reset_link": reset_link}


@pytest.fixture(scope="module")
def reader_page(running: Site, browser: Browser, reader: User) -> Iterator[Page]:
    page = new_context(browser).new_page()
    running.sign_in(page, reader)
    yield page
    page.context.close()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.exhaustive
def test_error_page_has_no_problems(code: int, site: Site, page: Page) -> None:
    problems = problems_of(page, f"{site.url}/broken/{code}", f"error {code}")

    assert problems == [], "\n".join(problems)
    expect(page.locator(".error-code")).to_have_text(str(code))


@pytest.mark.parametrize(
    ("path", "text"),
    REFUSED,
)
@pytest.mark.exhaustive
def test_refused_form_has_no_problems(
    path: str, text: str, running: Site, path_values: dict[str, str], reader_page: Page, request: pytest.FixtureRequest
) -> None:
    page = request.getfixturevalue("page") if path.startswith(ANONYMOUS_ONLY) else reader_page

    address = running.url + path.format_map(path_values)
    problems = problems_of(
        page, address, f"refused {path}", sender(text), widths=[390]
    )  # test_pages.py checks the page itself

    assert problems == [], "\n".join(problems)
    expect(page.locator("main .is-invalid").first).to_be_visible()


@pytest.mark.exhaustive
def test_error_page_with_draft_has_no_problems(site: Site, reader_page: Page) -> None:
    def submit_with_expired_token(page: Page) -> None:
        page.get_by_label("Say something").fill("Half a thought")
        page.locator("main form [name=csrf_token]").first.evaluate("field => { field.value = 'too old' }")
        page.get_by_role("button", name="Post", exact=True).click()
        expect(page.locator("#draft")).to_have_value("Half a thought")

    problems = problems_of(reader_page, f"{site.url}/", "error 400 with a draft", submit_with_expired_token)

    assert problems == [], "\n".join(problems)


def sender(text: str) -> Callable[[Page], None]:
    """Return a function that fills each field of the page's first form with `text` and submits it unvalidated."""

    def send(page: Page) -> None:
        form = page.locator("main form").first
        form.evaluate("form => { form.noValidate = true }")
        for field in form.locator("input:not([type=hidden], [type=checkbox], [type=file], [readonly]), textarea").all():
            field.evaluate("field => field.removeAttribute('maxlength')")
            field.fill(text)
        with page.expect_response(lambda response: response.request.method == "POST") as response_info:
            form.locator("[type=submit]").first.click()
        assert response_info.value.status == 422
        expect(page.locator("main .invalid-feedback").first).to_be_visible()
        page.wait_for_load_state("load")

    return send
