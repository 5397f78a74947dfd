"""Security headers, checks of forms and redirects, rate limits by user, and fingerprints for cookies and links."""

from __future__ import annotations

import codecs
import hmac
import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from flask import Flask, Response, abort, current_app, request, session
from flask_babel import gettext as _
from flask_login import current_user

from microblog.extensions import csrf, limiter

YEAR = 365 * 24 * 3600

# Nothing inline and nothing from elsewhere. Bootstrap's arrows and ticks are data: images.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


View = TypeVar("View", bound=Callable[..., Any])
_LIMIT = "upload_limit"  # the attribute of a view that holds the name of its setting
_UPLOAD_PARTS = 10  # of a form with a file in it: each of the others may be as long as a form without one
_URLENCODED = "application/x-www-form-urlencoded"
_SLICE = re.compile(rb"(?s).{1,4096}(?:(?<=%)[0-9A-Fa-f]{2}|(?<=%[0-9A-Fa-f])[0-9A-Fa-f])?")  # cuts no %XX


def init_app(app: Flask) -> None:
    """Refuse forms that are no forms, or not UTF-8, and give each response the headers that it does not have yet."""
    app.before_request(_set_size)
    app.before_request(_refuse_json)
    app.before_request(_refuse_broken_encoding)
    app.after_request(_add_headers)


def takes_upload(setting: str) -> Callable[[View], View]:
    """A decorator, the outermost of a view: whoever is signed in may send it a file of as many bytes as `setting` says.

    Others are refused by the size that all may send, before anything of it is read. The files in a form are not text,
    and come past as they are; what else is in such a form the view looks at.
    """

    def mark(view: View) -> View:
        setattr(view, _LIMIT, setting)
        return view

    return mark


def admit_upload() -> bool:
    """Let this request bring as much as its view takes(); False if that is no more than all may bring."""
    setting = _upload_limit()
    if setting is None:
        return False
    request.max_content_length = current_app.config[setting]
    request.max_form_parts = _UPLOAD_PARTS
    return True


def is_upload() -> bool:
    """Return whether this request may bring more than all may, so that its body is read by its view alone."""
    return _upload_limit() is not None


def check_form_token() -> None:
    """Refuse a form from elsewhere, in a view that is exempt from being asked before. Raises CSRFError."""
    if current_app.config["WTF_CSRF_ENABLED"]:
        csrf.protect()


def local_path(target: str | None) -> str | None:
    """`target` if it is a path of this site (with or without a query), else None.

    Refused is all that a browser may take for another host: a scheme, a host, ``//``, a backslash (which
    browsers read as a slash) and control characters (which they leave out).
    """
    if not target or not target.startswith("/") or target.startswith("//"):
        return None
    return target if "\\" not in target and target.isprintable() else None


def referring_path() -> str | None:
    """The page of this site that the request came from, to send its reader back to; None if it does not say."""
    try:
        parts = urlsplit(request.referrer or "")
    except ValueError:
        return None
    if parts.netloc != request.host:
        return None
    return local_path(parts._replace(scheme="", netloc="").geturl())


def _set_size() -> None:
    # Before all that reads the form, such as the look for its CSRF token.
    if request.mimetype == _URLENCODED:
        # Parsed as a whole, each field and each escape an object: it may be no longer than one field of other forms.
        sizes = (request.max_content_length, request.max_form_memory_size)
        request.max_content_length = min((size for size in sizes if size is not None), default=None)
    elif "_user_id" in session:
        admit_upload()


def _upload_limit() -> str | None:
    """The setting that holds how much this request may bring, if that is not what all may."""
    setting: str | None = getattr(current_app.view_functions.get(request.endpoint or ""), _LIMIT, None)
    return setting


def _refuse_json() -> None:
    # Flask-WTF would take it for a form, and what is nested deeply enough for a fault of ours.
    if request.is_json and not request.path.startswith("/api/"):
        abort(400)


def _refuse_broken_encoding() -> None:
    # Werkzeug would quietly keep such bytes as %ED%A0%80, and the text would not be what was sent.
    try:
        if request.mimetype == _URLENCODED:
            _check_escaped(request.get_data())
        elif request.mimetype == "multipart/form-data" and not is_upload():
            request.get_data().decode()
    except UnicodeDecodeError:
        abort(400, _("The form has text that is not valid UTF-8, or half a character. Nothing was changed."))


def _check_escaped(form: bytes) -> None:
    """Raise UnicodeDecodeError if an urlencoded `form` is not UTF-8; a slice at a time, for each % is an object."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for piece in _SLICE.finditer(form):
        decoder.decode(unquote_to_bytes(piece[0]))
    decoder.decode(b"", final=True)


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", f"max-age={YEAR}")
    # Not current_user: that would ask the database, for a picture too, and for the page that says it is away.
    if "Cache-Control" not in response.headers and (request.authorization or "_user_id" in session):
        response.headers["Cache-Control"] = "no-store"
    return response


def current_user_id() -> int | None:
    """The id of whoever is signed in; not what their cookie has, which changes with the password."""
    return getattr(current_user, "id", None)


def limit_user(setting: str, user_id: Callable[[], int | None] = current_user_id, **options: Any) -> Any:
    """A decorator: a user may do this as often as `setting` says. Over the limit the answer is 429.

    `user_id` tells within a request who it is. `options` are Limiter.shared_limit's.
    """
    return limiter.shared_limit(
        lambda: current_app.config[setting],
        scope=setting,
        key_func=lambda: f"user:{user_id()}",
        **options,
    )


def limit_launches(user_id: Callable[[], int | None] = current_user_id) -> Any:
    """A decorator: a user may start ``RATELIMIT_EXPORT`` jobs of whatever kind. Over the limit the answer is 429."""
    return limit_user("RATELIMIT_EXPORT", user_id)


LENGTH = 32  # hex digits: 128 bits


def fingerprint(purpose: str, *facts: str) -> str:
    """A digest of `facts`, keyed with ``SECRET_KEY``: it tells nothing of them, and fits no other `purpose`."""
    key: str = current_app.config["SECRET_KEY"]
    return hmac.digest(key.encode(), "\0".join((purpose, *facts)).encode(), "sha256").hex()[:LENGTH]
