"""Decorators of views: access for operators, and rate limits of passwords and mailed links."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from flask import Response, abort, current_app, request
from flask_limiter import RequestLimit
from flask_login import current_user, login_required

from microblog.extensions import limiter
from microblog.security import fingerprint
from microblog.validators import comparable_email

View = TypeVar("View", bound=Callable[..., Any])


def require_operator() -> None:
    """Raise NotFound unless an operator asks: to everybody else there is nothing here, as with foreign tasks.

    Nobody in particular asks where login_required lets OPTIONS pass.
    """
    if not (current_user.is_authenticated and current_user.is_operator):
        abort(404)


def operator_required(view: View) -> View:
    """A decorator: the page is for operators. Whoever is not signed in is asked to; everybody else gets 404."""

    @login_required
    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        require_operator()
        return view(*args, **kwargs)

    return cast(View, guarded)


def limit_password_attempts() -> Any:
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
        key_func=lambda: "name:" + fingerprint("rate-limit", comparable_email(name())),
    )
    # They are counted in this order: what a client is refused shall not be counted against the name.
    return lambda view: by_name(by_client(view))


def limit_link_emails(whose: Callable[[], str], answer: Callable[[RequestLimit], Response] | None = None) -> Any:
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
