"""Rate limits that several rooms share, each counted by user: whichever page or program is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import current_app
from flask_login import current_user

from microblog.extensions import limiter


def reader_id() -> int | None:
    """The id of whoever is signed in; not what their cookie has, which changes with the password."""
    return getattr(current_user, "id", None)


def limit_user(setting: str, user_id: Callable[[], int | None] = reader_id, **options: Any) -> Any:
    """A decorator: a user may do this as often as `setting` says. Over the limit the answer is 429.

    `user_id` tells within a request who it is. `options` are Limiter.shared_limit's.
    """
    return limiter.shared_limit(
        lambda: current_app.config[setting],
        scope=setting,
        key_func=lambda: f"user:{user_id()}",
        **options,
    )


def limit_launches(user_id: Callable[[], int | None] = reader_id) -> Any:
    """A decorator: a user may start ``RATELIMIT_EXPORT`` jobs of whatever kind. Over the limit the answer is 429."""
    return limit_user("RATELIMIT_EXPORT", user_id)
