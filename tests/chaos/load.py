"""The users, and the steady load that they generate through the pages and the API."""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.cookiejar
import json
import random
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa
from werkzeug.security import generate_password_hash

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.posts.models import Post

PASSWORD = "cat-dog-fish"
#: Pairs of a number of users and the number of posts that each has.
POSTS_PER_USER = [(4, 0), (23, 40), (12, 700), (6, 6_000), (3, 100_000)]
THREADS = 4
REQUESTS_PER_SECOND = 1.4  # of all users together
TIMEOUT = 15.0

_POSTS = """
    WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :posts)
    INSERT INTO post (user_id, body, timestamp)
    SELECT :user_id, 'Thought ' || n || ' “of” ' || :username, :time FROM number
"""
_NO_RESPONSE = 0


class Response(NamedTuple):
    """A response: its status, 0 if there was none, and the body."""

    status: int
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class SimulatedUser:
    """A user with an API token who, if `in_browser`, is also signed in on the pages."""

    def __init__(self, url: str, username: str, *, in_browser: bool) -> None:
        self.username = username
        self.statuses: Counter[int] = Counter()
        self.unexpected: list[str] = []  # responses that must never occur
        self.accepted: list[str] = []  # ids of jobs that the API has accepted
        self._url = url
        self._in_browser = in_browser
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), _NoRedirect()
        )
        self._headers: dict[str, str] = {}

    def sign_in(self) -> None:
        """Get a token and sign in."""
        credentials = base64.b64encode(f"{self.username}:{PASSWORD}".encode()).decode()
        response = self._request("/api/tokens", {}, headers={"Authorization": f"Basic {credentials}"})
        self._headers = {"Authorization": f"Bearer {response.json['token']}"}
        if self._in_browser:
            form = {"username": self.username, "password": PASSWORD}
            assert self._submit("/auth/login", on_page="/auth/login", **form).status == 302

    def request_export(self) -> None:
        """Request an export."""
        if self._in_browser:
            self._submit("/export_posts", on_page=f"/user/{self.username}")
            return
        response = self._request("/api/exports", {}, headers=self._headers)
        if response.status == 202:
            self.accepted.append(response.json["id"])

    def cancel(self) -> None:
        """Cancel the newest job."""
        for job in self._newest_jobs()[:1]:
            self._request(f"/api/tasks/{job['id']}/cancel", {}, headers=self._headers)

    def retry(self) -> None:
        """Retry the newest job that failed or was cancelled."""
        for job in [job for job in self._newest_jobs() if job["state"] in ("FAILURE", "REVOKED")][:1]:
            response = self._request(f"/api/tasks/{job['id']}/retry", {}, headers=self._headers)
            if response.status == 202:
                self.accepted.append(response.json["id"])

    def _newest_jobs(self) -> list[dict[str, Any]]:
        response = self._request("/api/tasks?limit=5", headers=self._headers)
        return list(response.json["items"]) if response.status == 200 else []

    def _submit(self, path: str, *, on_page: str, **fields: str) -> Response:
        page = self._request(on_page)
        token = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page.body)
        return self._request(path, {**fields, "csrf_token": token[1]}) if token else page

    def _request(
        self, path: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> Response:
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        if data == b"":
            headers = {**(headers or {}), "Content-Type": "application/json"}
            data = b"{}"
        response = self._open(urllib.request.Request(self._url + path, data, headers or {}))
        self.statuses[response.status] += 1
        if response.status == 500:
            self.unexpected.append(f"{self.username} got 500 from {path}")
        return response

    def _open(self, request: urllib.request.Request) -> Response:
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                return Response(response.status, response.read().decode())
        except urllib.error.HTTPError as error:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return Response(error.code, error.read().decode())
        except (OSError, http.client.HTTPException):
            pass
        return Response(_NO_RESPONSE, "")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Return a redirect as the response instead of following it."""

    def redirect_request(self, *request: Any) -> None:
        return None


def add_users(posts: Mapping[str, int]) -> list[int]:
    """Add users, each with a number of posts, without a commit, and return their ids."""
    password_hash, now = generate_password_hash(PASSWORD), utcnow()
    user = sa.text(
        'INSERT INTO "user" (username, email, password_hash, created_at)'
        " VALUES (:name, :email, :password_hash, :now) RETURNING id"
    ).bindparams(sa.bindparam("now", type_=Post.timestamp.type))
    insert_posts = sa.text(_POSTS).bindparams(sa.bindparam("time", type_=Post.timestamp.type))
    ids = []
    for name, count in posts.items():
        values = {"name": name, "email": f"{name}@example.com", "password_hash": password_hash, "now": now}
        ids.append(db.session.execute(user, values).scalar_one())
        if count:
            db.session.execute(insert_posts, {"user_id": ids[-1], "username": name, "posts": count, "time": now})
    return ids


class Load:
    """All users, and the threads that act for them until rest() is called."""

    def __init__(self, url: str, seed: int) -> None:
        numbers = [posts for count, posts in POSTS_PER_USER for _ in range(count)]
        self.posts = {f"user{n}": posts for n, posts in enumerate(numbers)}
        self.users = [SimulatedUser(url, name, in_browser=n % 4 == 0) for n, name in enumerate(self.posts)]
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._act, args=(random.Random(f"{seed}/{n}"), self.users[n::THREADS]))
            for n in range(THREADS)
        ]

    def create_users(self) -> None:
        """Add the users and their posts. Requires an app context."""
        add_users(self.posts)
        db.session.commit()

    def start(self) -> None:
        """Sign all users in and start the threads."""
        for user in self.users:
            user.sign_in()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the threads, and return when no request is pending."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def request_export_twice(self, user: SimulatedUser) -> None:
        """Request two exports of one user at the same time."""
        together = threading.Barrier(2)

        def request_export() -> None:
            together.wait()
            user.request_export()

        threads = [threading.Thread(target=request_export) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def statuses(self) -> Counter[int]:
        """Return the number of responses by status, of all users."""
        return sum((user.statuses for user in self.users), Counter())

    def _act(self, rng: random.Random, users: list[SimulatedUser]) -> None:
        while not self._stopping.wait(rng.expovariate(REQUESTS_PER_SECOND / THREADS)):
            user = rng.choice(users)
            action = rng.random()
            if action < 0.7:
                user.request_export()
            elif action < 0.8:
                self.request_export_twice(user)
            elif action < 0.9:
                user.request_export()
                user.cancel()
            else:
                user.retry()
