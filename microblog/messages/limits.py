"""How often somebody may write to others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import current_app, request

from microblog.extensions import limiter


def limit_messages(user_id: Callable[[], Any]) -> Any:
    """A decorator: a user may send ``RATELIMIT_MESSAGE`` messages, by whichever page or program.

    `user_id` tells within a request whose they are. Over the limit the answer is 429.
    """
    return limiter.shared_limit(
        lambda: current_app.config["RATELIMIT_MESSAGE"],
        scope="messages",
        key_func=lambda: f"user:{user_id()}",
        exempt_when=lambda: request.method != "POST",
    )
