"""Send the requests and report the faults in the responses."""

from __future__ import annotations

import random
import re
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import permutations
from typing import Any

import sqlalchemy as sa
from flask import Flask, got_request_exception
from werkzeug.test import TestResponse

from microblog.accounts.models import User
from microblog.api.models import ApiToken
from microblog.extensions import db
from microblog.messages.models import Message
from microblog.messages.services import send_message
from microblog.notifications.models import Notification
from microblog.posts.models import Post
from microblog.taskqueue.models import Task
from tests.fuzz.requests import Sender, Sent, SignedInUser
from tests.fuzz.values import ExistingValues
from tests.support import not_none

PASSWORD = "cat-dog-fish"
ROUND = 1000  # requests with the same users; then new ones are added, since requests delete accounts
SLOW = 5.0  # seconds
FIRST_BYTES = 1  # chunks that are read of an event stream
MAY_BE_UNAVAILABLE = ("/readyz",)  # returns 503, since no worker runs here


@dataclass
class FuzzReport:
    """The results."""

    faults: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    streams: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


class Fuzzer:
    """Sends requests to `app`, whose database has been migrated."""

    def __init__(self, app: Flask, seed: int) -> None:
        self._app = app
        self._seed = seed
        self._client = app.test_client(use_cookies=False)
        self._sender = Sender.to(app)
        self.report = FuzzReport()

    def run(self, first: int, count: int) -> FuzzReport:
        """Send `count` requests, starting with number `first`. Return the report."""
        for number in range(first, first + count):
            if number == first or number % ROUND == 0:
                accounts, existing = self._accounts(number // ROUND), self._existing()
            self._send(number, self._sender.make(self._seed, number, accounts, existing))
        return self.report

    def _send(self, number: int, sent: Sent) -> None:
        self._app.config["WTF_CSRF_ENABLED"] = sent.csrf
        began = time.monotonic()
        with _exceptions(self._app) as raised:
            response = self._client.open(**sent.options, buffered=False)
            self._read(sent, response)
        seconds = time.monotonic() - began
        self.report.asked[sent.rule] += 1
        self.report.statuses[response.status_code] += 1
        self.report.slowest = max(self.report.slowest, seconds)
        if response.status_code >= 500 and not (response.status_code == 503 and sent.rule in MAY_BE_UNAVAILABLE):
            self._add_fault(number, sent, f"{response.status_code}\n{''.join(raised)}")
        if seconds > SLOW:
            self._add_fault(number, sent, f"took {seconds:.1f} s")

    def _read(self, sent: Sent, response: TestResponse) -> None:
        """Read the whole response, or the beginning of an event stream, which does not end."""
        if response.mimetype == "text/event-stream":
            self.report.streams[sent.rule] += 1
            for _, _piece in zip(range(FIRST_BYTES), response.response, strict=False):
                pass
        else:
            response.get_data()
        response.close()

    def _add_fault(self, number: int, sent: Sent, what: str) -> None:
        command = f"python -m tests.fuzz --seed {self._seed} --first {number} --requests 1"
        self.report.faults.append(f"{what}\n  request {number}: {sent}\n  to repeat it: {command}\n")

    def _accounts(self, generation: int) -> list[SignedInUser]:
        """Return two new users and a new operator, with posts, jobs, and messages to each other."""
        names = [f"{name}-{generation}" for name in ("susan", "david", "operator")]
        accounts = [self._account(name) for name in names]
        with self._app.app_context():
            for sender, recipient in permutations(names, 2):
                users = [not_none(User.with_username(name)) for name in (sender, recipient)]
                send_message(users[0], users[1], f"Hello {recipient}")
        return accounts

    def _account(self, name: str) -> SignedInUser:
        with self._app.app_context():
            user = User(username=name, email=f"{name}@example.com", is_operator=name.startswith("operator"))
            user.set_password(PASSWORD)
            db.session.add(user)
            db.session.flush()
            db.session.add_all(Post(user_id=user.id, body=f"Thought {number} of {name}") for number in range(30))
            token, _row = ApiToken.issue(user, timedelta(days=1), name)
            user.launch_task("export_posts", "Exporting your posts")
            db.session.commit()
        browser = self._app.test_client()
        self._app.config["WTF_CSRF_ENABLED"] = False
        signed_in = browser.post("/auth/login", data={"username": name, "password": PASSWORD})
        assert signed_in.status_code == 302, signed_in.text
        self._app.config["WTF_CSRF_ENABLED"] = True
        csrf_token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', browser.get("/").text)
        assert csrf_token
        cookie = browser.get_cookie("session")
        assert cookie
        return SignedInUser(f"session={cookie.value}", csrf_token[1], token, name)

    def _existing(self) -> ExistingValues:
        with self._app.app_context():
            names = list(db.session.scalars(sa.select(User.username).order_by(User.id.desc()).limit(6)))
            tasks = list(db.session.scalars(sa.select(Task.id).order_by(Task.created_at.desc()).limit(20)))
            columns = (User.id, Post.id, ApiToken.id, Message.id, Notification.id)
            newest = [sa.select(column).order_by(column.desc()).limit(20) for column in columns]
            numbers = [str(number) for query in newest for number in db.session.scalars(query)]
        return ExistingValues(names=names, tasks=tasks, numbers=numbers, secrets=[PASSWORD, "post", "export_posts"])


@contextmanager
def _exceptions(app: Flask) -> Iterator[list[str]]:
    """Collect the tracebacks of exceptions that lead to a 500 during the block."""
    raised: list[str] = []

    def collect(sender: Flask, exception: BaseException, **_: Any) -> None:
        raised.extend(traceback.format_exception(exception))

    with got_request_exception.connected_to(collect, app):
        yield raised


def random_seed() -> int:
    """Return a random seed, the default."""
    return random.randrange(1_000_000)
