"""Authentication of API requests: HTTP Basic for a new token, bearer tokens for everything else, no cookies."""

from __future__ import annotations

from flask import g, request
from flask_babel import gettext as _
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from microblog import i18n
from microblog.accounts.models import MAX_EMAIL, MAX_PASSWORD, User
from microblog.api.models import ApiToken

REALM = "Microblog API"


def load_token() -> None:
    """Look up the token of this request, and use the locale of its user (a ``before_request`` hook).

    Without a valid token, ``g.api_token`` is None.
    """
    authorization = request.authorization
    bearer = authorization.token if authorization is not None and authorization.type == "bearer" else None
    g.api_token = ApiToken.find(bearer) if bearer else None
    if g.api_token is not None:
        i18n.use_locale_of(g.api_token.user)


def require_token() -> None:
    """Require a valid token, except for OPTIONS, which returns no user's data (a ``before_request`` hook).

    Raises Unauthorized.
    """
    if request.method == "OPTIONS":
        return
    authorization = request.authorization
    if authorization is None or authorization.type != "bearer" or not authorization.token:
        raise _unauthorized(_("Send a token: “Authorization: Bearer …”. POST /api/tokens makes one."), "bearer")
    if g.api_token is not None and not g.api_token.mark_used():
        g.api_token = None
    if g.api_token is None:
        raise _unauthorized(
            _("This token is unknown, revoked or expired. POST /api/tokens makes a new one."),
            "bearer",
            error="invalid_token",
        )


def require_token_unless_post() -> None:
    """Like require_token(), but allow POST, which creates objects without a token. Raises Unauthorized."""
    if request.method != "POST":
        require_token()


def rate_limit_key() -> str:
    """Return the key by which requests are counted: the token, or the client's address if there is no valid token."""
    return f"token:{g.api_token.id}" if g.api_token else f"address:{request.remote_addr}"


def presented_token() -> ApiToken:
    """Return the token of this request, which require_token() has checked."""
    token: ApiToken = g.api_token
    return token


def caller() -> User:
    """Return the user whose token this request presents."""
    return presented_token().user


def user_by_password() -> User:
    """Return the user whose name (or email address) and password this request presents. Raises Unauthorized."""
    authorization = request.authorization
    if authorization is None or authorization.type != "basic":
        raise _unauthorized(_("Send your username and password with HTTP Basic authentication."), "basic")
    name, password = authorization.username or "", authorization.password or ""
    user = None
    if len(name) <= MAX_EMAIL and len(password) <= MAX_PASSWORD:
        user = User.with_credentials(name, password)
    if user is None:
        raise wrong_password()
    return user


def wrong_password() -> Unauthorized:
    """Return the error for a wrong name or password."""
    return _unauthorized(_("The username or the password is wrong."), "basic")


def _unauthorized(message: str, scheme: str, **parameters: str) -> Unauthorized:
    challenge = WWWAuthenticate(scheme, {"realm": REALM, **parameters})
    return Unauthorized(message, www_authenticate=challenge)
