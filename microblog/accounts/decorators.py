"""View decorators: access for operators only, rate limits for passwords and for mailed links."""

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
    """Raise NotFound unless the current user is an operator: other users must not learn that the page exists.

    The user is anonymous if login_required has let an OPTIONS request pass.
    """
    if not (current_user.is_authenticated and current_user.is_operator):
        abort(404)


def operator_required(view: View) -> View:
    """Restrict a view to operators. Anonymous users are redirected to the sign-in page; other users get 404."""

    @login_required
    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        require_operator()
        return view(*args, **kwargs)

    return cast(View, guarded)


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
