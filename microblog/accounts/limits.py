"""How often somebody may try a password, and have links mailed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, current_app, request
from flask_limiter import RequestLimit

from microblog.accounts.address import comparable
from microblog.accounts.fingerprint import fingerprint
from microblog.extensions import limiter


def limit_guesses() -> Any:
    """A decorator: a client may send a page's form ``RATELIMIT_SIGN_IN`` times. Over the limit the answer is 429."""
    return limiter.limit(lambda: current_app.config["RATELIMIT_SIGN_IN"], methods=["POST"])


def limit_sign_ins(name: Callable[[], str]) -> Callable[[Any], Any]:
    """A decorator for what lets somebody in by `name` and password, whichever page or program is used.

    A client may try ``RATELIMIT_SIGN_IN`` times, and all clients together ``RATELIMIT_SIGN_IN_NAME`` times for one
    name. Over a limit the answer is 429.
    """
    by_client = limiter.shared_limit(lambda: current_app.config["RATELIMIT_SIGN_IN"], scope="sign-in", methods=["POST"])
    by_name = limiter.shared_limit(
        lambda: current_app.config["RATELIMIT_SIGN_IN_NAME"],
        scope="sign-in",
        methods=["POST"],
        # Not in words, for it is kept in Redis.
        key_func=lambda: "name:" + fingerprint("rate-limit", comparable(name())),
    )
    # They are counted in this order: what a client is refused shall not be counted against the name.
    return lambda view: by_name(by_client(view))


def limit_links(whose: Callable[[], str], answer: Callable[[RequestLimit], Response] | None = None) -> Any:
    """A decorator: ``RATELIMIT_LINKS`` mails with a link may be asked for each `whose()`, such as an address.

    Over the limit the answer is what `answer` returns, or 429.
    """
    return limiter.shared_limit(
        lambda: current_app.config["RATELIMIT_LINKS"],
        scope="links",
        key_func=whose,
        exempt_when=lambda: request.method != "POST",
        deduct_when=lambda response: response.status_code == 302,  # not for a form that was refused
        on_breach=answer,
    )
