"""Rate limits that several rooms share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import current_app

from microblog.extensions import limiter


def limit_launches(user_id: Callable[[], Any]) -> Any:
    """A decorator: a user may start ``RATELIMIT_EXPORT`` jobs, by whichever page or program.

    `user_id` tells within a request whose they are. Over the limit the answer is 429.
    """
    return limiter.shared_limit(
        lambda: current_app.config["RATELIMIT_EXPORT"],
        scope="launches",
        key_func=lambda: f"user:{user_id()}",
    )
