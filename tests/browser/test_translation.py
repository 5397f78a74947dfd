"""Translation of a post that is not in the language of its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from microblog.extensions import db
from microblog.posts.models import Post
from tests.browser.page_checks import visible_problems
from tests.browser.site import Site
from tests.support.translator import TranslationServer

RUSSIAN = "Завтра едем на дачу, если не будет дождя."
ENGLISH = "Tomorrow we go to the dacha, unless it rains."
TRANSLATE, ORIGINAL = "Translate from Russian", "Show original"


@pytest.fixture
def service(translation_server: TranslationServer) -> Iterator[TranslationServer]:
    translation_server.reset()
    translation_server.translations[RUSSIAN] = ENGLISH
    yield translation_server
    translation_server.reset()


@pytest.fixture
def page_url(site: Site) -> str:
    """The URL of a page with one Russian post, which has not been translated yet."""
    author = site.make_user()
    db.session.add(Post(user_id=author.id, body=RUSSIAN))
    db.session.commit()
    return f"{site.url}/user/{author.username}"


@pytest.mark.exhaustive
def test_post_is_translated_in_place_and_restored(
    site: Site, service: TranslationServer, page_url: str, page: Page
) -> None:
    site.sign_in(page, site.make_user())
    page.goto(page_url)
    service.answer = (500, b"")
    page.get_by_role("button", name=TRANSLATE).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="does not answer right now")).to_be_visible()
    service.answer = None

    page.keyboard.press("Enter")

    translation = page.locator(".post-translation")
    expect(translation).to_have_text(ENGLISH)
    expect(translation).to_have_attribute("lang", "en")
    expect(page.get_by_text(RUSSIAN)).to_be_hidden()
    expect(page.get_by_role("button", name=ORIGINAL)).to_be_focused()
    expect(page.get_by_text("does not answer right now")).to_have_count(0)
    assert visible_problems(page, "profile with a translation") == []
    page.keyboard.press("Enter")
    expect(page.get_by_text(RUSSIAN)).to_be_visible()
    expect(translation).to_be_hidden()
    page.get_by_role("button", name=TRANSLATE).click()
    expect(translation).to_be_visible()
    assert page.url == page_url
    assert len(service.questions) == 2  # the failed request and the successful one


@pytest.mark.exhaustive
def test_translation_is_a_page_without_javascript(
    site: Site, service: TranslationServer, page_url: str, open_browser: Callable[..., BrowserContext]
) -> None:
    page = open_browser(java_script_enabled=False).new_page()
    site.sign_in(page, site.make_user())
    page.goto(page_url)

    page.get_by_role("button", name=TRANSLATE).click()

    expect(page.get_by_text(ENGLISH)).to_be_visible()
    expect(page.get_by_text(RUSSIAN)).to_be_visible()
    expect(page.get_by_text("Translated from Russian")).to_be_visible()
