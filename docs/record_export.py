"""Record docs/export.webp: an export on the real page, from the click to the download button.

Start `make run` in another terminal, then `.venv/bin/python docs/record_export.py`. It signs in as demo and adds posts
so that the export lasts some seconds; they are deleted at the end. Set BASE_URL for another port than 8000.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import sqlalchemy as sa
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from microblog import create_app
from microblog.accounts.models import User
from microblog.extensions import db
from microblog.posts.models import Post

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:8000")
TARGET = Path(__file__).with_name("export.webp")
POSTS = 1_500_000
SIZE = {"width": 800, "height": 420}
FRAME_INTERVAL = 0.25  # seconds
LAST_FRAME_SHOWN = 3.0  # seconds
CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)


@contextmanager
def many_posts() -> Iterator[None]:
    """Give the user demo ``POSTS`` more posts inside the block."""
    with create_app().app_context():
        user = User.with_username("demo")
        if user is None:
            raise SystemExit("there is no user demo: run `make run` first")
        last = db.session.scalar(sa.select(sa.func.max(Post.id))) or 0
        numbers = sa.select(sa.literal(1).label("n")).cte(recursive=True)
        numbers = numbers.union_all(sa.select(numbers.c.n + 1).where(numbers.c.n < POSTS))
        rows = sa.select(
            sa.literal("One of many"), sa.literal("2020-01-01 00:00:00.000000"), user.id, sa.true(), sa.literal("")
        )
        columns = ["body", "timestamp", "user_id", "imported", "terms"]
        db.session.execute(sa.insert(Post).from_select(columns, rows.select_from(numbers), include_defaults=False))
        db.session.commit()
        try:
            yield
        finally:
            db.session.execute(sa.delete(Post).where(Post.id > last, Post.body == "One of many"))
            db.session.commit()


def record(page: Page) -> list[Image.Image]:
    """Return one picture each ``FRAME_INTERVAL`` seconds until the export is done."""
    page.goto(f"{BASE_URL}/auth/login")
    page.get_by_label("Username or email").fill("demo")
    page.get_by_label("Password").fill("demo")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Profile").click()
    page.get_by_role("button", name="Export your posts").click()
    page.locator(".job").first.wait_for()
    frames = []
    while True:
        frames.append(Image.open(BytesIO(page.screenshot())).convert("RGB"))
        if page.locator(".job").first.locator(".job-state").text_content() == "Done":
            return frames
        time.sleep(FRAME_INTERVAL)


def main() -> None:
    """Record, and write ``TARGET``."""
    with sync_playwright() as playwright, many_posts():
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        frames = record(browser.new_page(viewport=SIZE))
        browser.close()
    durations = [int(FRAME_INTERVAL * 1000)] * (len(frames) - 1) + [int(LAST_FRAME_SHOWN * 1000)]
    first, *others = frames
    first.save(TARGET, save_all=True, append_images=others, duration=durations, loop=0, quality=70, method=6)
    print(f"{TARGET}: {len(frames)} frames, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
