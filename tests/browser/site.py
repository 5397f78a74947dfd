"""A complete site for browser tests: gunicorn and a worker as in production, with a separate database."""

from __future__ import annotations

import contextlib
import mailbox
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, BrowserContext, Page

from microblog.accounts.models import User
from microblog.development.process_manager import ManagedProcess
from microblog.development.servers import web_answers
from microblog.extensions import db
from microblog.posts.models import Post
from microblog.taskqueue.models import Task
from tests.browser.tasks import Dial, import_hold_file
from tests.conftest import hash_of
from tests.support import app_factory, servers
from tests.support.clients import PASSWORD
from tests.support.servers import RedisServer, Worker, free_port, wait_for

TIMEOUT = 1000 * servers.TIMEOUT  # milliseconds to wait for the expected state of a page
BEGINNING = datetime(2026, 1, 1, 12, tzinfo=UTC)


class WebServer(ManagedProcess):
    """gunicorn with the configuration of `make run`. kill() interrupts open streams."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "tests.browser.web:create_app()"]
        super().__init__(command, environment | {"HOST": "127.0.0.1", "PORT": str(self.port)}, stdout=log)
        self._wait()

    def restart(self) -> None:
        super().restart()
        self._wait()

    def _wait(self) -> None:
        self.wait_until(lambda: web_answers(self.port, "/healthz", timeout=10), "gunicorn", servers.TIMEOUT)


class Site:
    """The site under test, with methods to create its users and jobs."""

    def __init__(self, web: WebServer, worker: Worker, redis_server: RedisServer, instance: Path) -> None:
        self.web = web
        self.worker = worker
        self.redis_server = redis_server
        self.url = f"http://127.0.0.1:{web.port}"
        self._instance = instance
        self._users = 0

    def make_user(self, posts: int = 0) -> User:
        """Create a user with `posts` posts."""
        self._users += 1
        name = f"reader{self._users}"
        user = User(username=name, email=f"{name}@example.com", password_hash=hash_of(PASSWORD))
        db.session.add(user)
        db.session.flush()
        db.session.add_all(
            Post(user_id=user.id, body=f"Thought number {n}", timestamp=BEGINNING + timedelta(minutes=n))
            for n in range(posts)
        )
        db.session.commit()
        return user

    def start_job(self, user: User, dial: Dial) -> str:
        """Launch a job whose progress follows `dial`, and return its id."""
        task = user.launch_task("crank", "Turning the crank", str(dial.path))
        db.session.commit()
        return task.id

    def is_idle(self) -> bool:
        """Return True if all jobs have ended, so that the operators' pages no longer change."""
        db.session.rollback()
        return db.session.scalar(sa.select(Task.id).where(Task.unfinished).limit(1)) is None

    @contextlib.contextmanager
    def holding_imports(self) -> Iterator[None]:
        """Let no import store posts during the block."""
        hold = import_hold_file()
        hold.parent.mkdir(exist_ok=True)
        hold.touch()
        try:
            yield
        finally:
            hold.unlink()

    def keep_mail(self, message: EmailMessage) -> None:
        """Add a mail to the Maildir that /dev/mail shows."""
        mailbox.Maildir(self._instance / "mail").add(message)

    def sign_in(self, page: Page, user: User) -> None:
        """Sign in through the form, whatever the language of the page is."""
        page.goto(f"{self.url}/auth/login")
        page.locator("#username").fill(user.username)
        page.locator("#password").fill(PASSWORD)
        page.locator("main button[type=submit]").first.click()
        page.wait_for_url(f"{self.url}/")


def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """Open a new browser context, whose pages share their cookies."""
    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT)
    return context


def until_held(page: Page, held: Sequence[object], number: int = 1) -> None:
    """Wait until the route handlers of `page` have put `number` requests into `held`.

    Playwright calls the handlers while it waits for a timeout.
    """

    def are_held() -> bool:
        page.wait_for_timeout(10)
        return len(held) >= number

    wait_for(are_held, what=f"{number} requests are held")


@contextlib.contextmanager
def running_site(base_environment: dict[str, str], folder: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Run a site on SQLite in `folder` during the block, in development mode, so that it shows its mails."""
    with contextlib.ExitStack() as stack:
        instance = folder / "instance"
        redis_server = stack.enter_context(RedisServer().running())
        environment = base_environment | {
            "MICROBLOG_ENV": "development",
            "REDIS_URL": redis_server.url,
            # No service becomes unavailable in these tests, but all may be slow on a busy machine.
            "REDIS_TIMEOUT": "30",
            "TASK_LEASE": "60",
            "DATABASE_URL": app_factory.fresh_database(folder, request),
            "INSTANCE_PATH": str(instance),
            # The server detects a closed stream at its next heartbeat.
            "STREAM_HEARTBEAT": "0.5",
        }
        web = WebServer(environment, folder / "web.log")
        stack.callback(web.kill)
        options = ("--include", "tests.browser.tasks", "--queues", "exports,mail,default")
        worker = Worker(environment, *options, log=folder / "worker.log")
        stack.callback(worker.stop)
        stack.enter_context(app_factory.application(environment))
        yield Site(web, worker, redis_server, instance)
