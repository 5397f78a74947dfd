"""Searching from the header of any page."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from microblog.extensions import db
from microblog.posts.models import Post
from tests.browser.site import Site


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.exhaustive
def test_search_marks_words_and_pages_results(site: Site, page: Page, width: int) -> None:
    user = site.make_user()
    db.session.add_all(Post(body=f"A marmot on day {n} of {width}", user_id=user.id) for n in range(30))
    db.session.commit()
    page.set_viewport_size({"width": width, "height": 900})
    site.sign_in(page, user)

    page.get_by_role("searchbox", name="Search").fill(f"{width} MÁRMOT")
    page.keyboard.press("Enter")

    expect(page.get_by_role("searchbox", name="Search")).to_have_value(f"{width} MÁRMOT")
    bodies = page.locator(".post-body")
    expect(bodies).to_have_count(25)
    expect(bodies.first.locator("mark")).to_have_text(["marmot", str(width)])
    first = bodies.all_inner_texts()
    page.get_by_role("link", name="Next").click()
    expect(bodies).to_have_count(5)
    assert not set(first) & set(bodies.all_inner_texts())
    page.get_by_role("link", name="Previous").click()
    expect(bodies).to_have_text(first)

    page.get_by_role("searchbox", name="Search").fill("nobodywrotethis")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No post has this.")).to_be_visible()
