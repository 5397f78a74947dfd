"""Rate limits of views: per user, of jobs, of passwords, and of mailed links. Their counters are in Redis.

The limit of all requests to the API is in api/responses.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, current_app, request
from flask_limiter import RequestLimit
from flask_login import current_user

from microblog.extensions import limiter
from microblog.security import fingerprint
from microblog.validators import comparable_email


def current_user_id() -> int | None:
    """Return the id of the signed-in user, or None; not the session's id, which changes with the password."""
    return getattr(current_user, "id", None)


def limit_user(setting: str, user_id: Callable[[], int | None] = current_user_id, **options: Any) -> Any:
    """Return a decorator that limits the calls of a view per user to the rate in `setting`; above it the status is 429.

    `user_id` returns the user of the current request. `options` are those of Limiter.shared_limit.
    """
    return limiter.shared_limit(
        lambda: current_app.config[setting],
        scope=setting,
        key_func=lambda: f"user:{user_id()}",
        **options,
    )


def limit_launches(user_id: Callable[[], int | None] = current_user_id) -> Any:
    """Return a decorator that limits the jobs a user starts, of all kinds together, to ``RATELIMIT_EXPORT``."""
    return limit_user("RATELIMIT_EXPORT", user_id)


def limit_password_attempts() -> Any:
    """Return a decorator that lets a client submit a page's form ``RATELIMIT_SIGN_IN`` times, and then answers 429."""
    return limiter.limit(lambda: current_app.config["RATELIMIT_SIGN_IN"], methods=["POST"])


def limit_sign_ins(name: Callable[[], str]) -> Callable[[Any], Any]:
    """Return a decorator that limits sign-ins by `name` and password; the pages and the API share the limits.

    A client may try ``RATELIMIT_SIGN_IN`` times, and all clients together ``RATELIMIT_SIGN_IN_NAME`` times for one
    name. Over a limit the response is 429.
    """
    by_client = limiter.shared_limit(lambda: current_app.config["RATELIMIT_SIGN_IN"], scope="sign-in", methods=["POST"])
    by_name = limiter.shared_limit(
        lambda: current_app.config["RATELIMIT_SIGN_IN_NAME"],
        scope="sign-in",
        methods=["POST"],
        # A fingerprint, since the key is stored in Redis.
        key_func=lambda: "name:" + fingerprint("rate-limit", comparable_email(name())),
    )
    # The client's limit is checked first: its refused requests must not count against the name.
    return lambda view: by_name(by_client(view))


def limit_link_emails(key_func: Callable[[], str], on_breach: Callable[[RequestLimit], Response] | None = None) -> Any:
    """Return a decorator that allows ``RATELIMIT_LINKS`` mails with a link for each `key_func()`, such as an address.

    Over the limit the response is the one that `on_breach` returns, or 429.
    """
    return limiter.shared_limit(
        lambda: current_app.config["RATELIMIT_LINKS"],
        scope="links",
        key_func=key_func,
        exempt_when=lambda: request.method != "POST",
        deduct_when=lambda response: response.status_code == 302,  # an invalid form does not count
        on_breach=on_breach,
    )
