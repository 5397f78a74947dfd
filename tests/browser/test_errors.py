"""The pages of what went wrong, and forms that say what is wrong with them: as sound as all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from microblog.accounts import tokens
from microblog.accounts.models import User
from tests.browser.site import Site, new_context
from tests.browser.soundness import problems_of

CODES = [400, 401, 403, 404, 413, 429, 500, 503]
LONG = "W" * 300
# What is written into each field of the page's first form: too little of it, or too much. The names in braces are
# those that the fixture `facts` gives.
REFUSED = [
    *[(path, "") for path in ("/auth/login", "/auth/register", "/auth/reset_password_request", "{reset_link}")],
    *[(path, LONG) for path in ("/", "/edit_profile", "/account/tokens")],
    *[(path, "") for path in ("/send_message/{friend}", "/import", "/account/password", "/account/email")],
    ("/account/delete/confirm", ""),
]
IN_PRIVATE = ("/auth", "{reset_link}")  # for those who are not signed in


@pytest.fixture(scope="module")
def reader(running: Site) -> User:
    return running.make_user(posts=1)


@pytest.fixture(scope="module")
def facts(running: Site, reader: User) -> dict[str, str]:
    reset_link = urlsplit(tokens.password_reset_url(reader)).path
    return {"friend": running.make_user().username, "reset_link": reset_link}


@pytest.fixture(scope="module")
def readers_page(running: Site, browser: Browser, reader: User) -> Iterator[Page]:
    page = new_context(browser).new_page()
    running.sign_in(page, reader)
    yield page
    page.context.close()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.exhaustive
def test_the_page_of_an_error_is_sound(code: int, site: Site, page: Page) -> None:
    problems = problems_of(page, f"{site.url}/broken/{code}", f"error {code}")

    assert problems == [], "\n".join(problems)
    expect(page.locator(".error-code")).to_have_text(str(code))


@pytest.mark.parametrize(
    ("path", "text"),
    REFUSED,
)
@pytest.mark.exhaustive
def test_a_form_that_is_refused_is_sound(
    path: str, text: str, running: Site, facts: dict[str, str], readers_page: Page, request: pytest.FixtureRequest
) -> None:
    page = request.getfixturevalue("page") if path.startswith(IN_PRIVATE) else readers_page

    address = running.url + path.format_map(facts)
    problems = problems_of(page, address, f"refused {path}", sender(text), widths=[390])  # the page itself is known

    assert problems == [], "\n".join(problems)
    expect(page.locator("main .is-invalid").first).to_be_visible()


@pytest.mark.exhaustive
def test_a_page_that_gives_back_what_was_written_is_sound(site: Site, readers_page: Page) -> None:
    def write_too_late(page: Page) -> None:
        page.get_by_label("Say something").fill("Half a thought")
        page.locator("main form [name=csrf_token]").first.evaluate("field => { field.value = 'too old' }")
        page.get_by_role("button", name="Post", exact=True).click()
        expect(page.locator("#draft")).to_have_value("Half a thought")

    problems = problems_of(readers_page, f"{site.url}/", "error 400 with a draft", write_too_late)

    assert problems == [], "\n".join(problems)


def sender(text: str) -> Callable[[Page], None]:
    """Writes `text` into each field of the page's first form, and sends it, whatever the browser thinks of it."""

    def send(page: Page) -> None:
        form = page.locator("main form").first
        form.evaluate("form => { form.noValidate = true }")
        for field in form.locator("input:not([type=hidden], [type=checkbox], [type=file], [readonly]), textarea").all():
            field.evaluate("field => field.removeAttribute('maxlength')")
            field.fill(text)
        with page.expect_response(lambda response: response.request.method == "POST") as answer:
            form.locator("[type=submit]").first.click()
        assert answer.value.status == 422
        expect(page.locator("main .invalid-feedback").first).to_be_visible()
        page.wait_for_load_state("load")

    return send
