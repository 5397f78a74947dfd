"""How often somebody may try a password, and have links mailed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, current_app, request
from flask_limiter import RequestLimit

from microblog.extensions import limiter


def limit_guesses() -> Any:
    """A decorator: a client may send a page's form ``RATELIMIT_SIGN_IN`` times. Over the limit the answer is 429."""
    return limiter.limit(lambda: current_app.config["RATELIMIT_SIGN_IN"], methods=["POST"])


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
