"""Security headers, checks of forms and redirects, fingerprints and signed links."""

from __future__ import annotations

import codecs
import hmac
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from flask import Flask, Response, abort, current_app, request, session
from flask_babel import gettext as _
from itsdangerous import BadSignature, URLSafeTimedSerializer

from microblog.clock import utcnow
from microblog.extensions import csrf

YEAR = 365 * 24 * 3600
FINGERPRINT_LENGTH = 32  # hex digits: 128 bits

# No inline code and no other origins. Bootstrap's arrows and ticks are data: images.
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
_LIMIT = "upload_limit"  # the attribute of a view with the name of its setting
_UPLOAD_PARTS = 10  # parts of a form with a file, at most: each field may be as long as a whole form without a file
_URLENCODED = "application/x-www-form-urlencoded"
_SLICE = re.compile(rb"(?s).{1,4096}(?:(?<=%)[0-9A-Fa-f]{2}|(?<=%[0-9A-Fa-f])[0-9A-Fa-f])?")  # does not split %XX


def init_app(app: Flask) -> None:
    """Reject JSON and invalid UTF-8 sent to forms, limit the size of requests, and add the security headers."""
    app.before_request(_set_size)
    app.before_request(_refuse_json)
    app.before_request(_refuse_broken_encoding)
    app.after_request(_add_headers)
    app.extensions["security_headers"] = dict(HEADERS)


def allow_form_redirect(app: Flask, origin: str) -> None:
    """Allow that forms lead to `origin` by redirects, as a sign-in on the way to a download does."""
    headers = app.extensions["security_headers"]
    policy = CONTENT_SECURITY_POLICY.replace("form-action 'self'", f"form-action 'self' {origin}")
    headers["Content-Security-Policy"] = policy


def accepts_upload(setting: str) -> Callable[[View], View]:
    """Return a decorator, the outermost of a view, that allows a signed-in user to upload `setting` bytes.

    For anonymous users the general size limit applies, before any of the body is read. The encoding of such a form is
    not checked, since it contains a file; the view has to validate the other fields.
    """

    def mark(view: View) -> View:
        setattr(view, _LIMIT, setting)
        return view

    return mark


def apply_upload_limit() -> bool:
    """Apply the upload limit of the view to this request. Return False if the view has none."""
    setting = _upload_limit()
    if setting is None:
        return False
    request.max_content_length = current_app.config[setting]
    request.max_form_parts = _UPLOAD_PARTS
    return True


def is_upload() -> bool:
    """Return True if the view has an upload limit of its own, so that only the view may read the body."""
    return _upload_limit() is not None


def check_form_token() -> None:
    """Check the CSRF token in a view that is exempt from the check before the view. Raises CSRFError."""
    if current_app.config["WTF_CSRF_ENABLED"]:
        csrf.protect()


def local_path(target: str | None) -> str | None:
    """Return `target` if it is a path of this site (with or without a query), otherwise None.

    Rejects everything that a browser may interpret as another host: a scheme, a host, ``//``, a backslash (which
    browsers treat as a slash) and control characters (which they drop).
    """
    if not target or not target.startswith("/") or target.startswith("//"):
        return None
    return target if "\\" not in target and target.isprintable() else None


def referring_path() -> str | None:
    """Return the path of the referring page, for a redirect back, or None if it is missing or of another site."""
    try:
        parts = urlsplit(request.referrer or "")
    except ValueError:
        return None
    if parts.netloc != request.host:
        return None
    return local_path(parts._replace(scheme="", netloc="").geturl())


def _set_size() -> None:
    # Runs before anything that reads the form, such as the CSRF check.
    if request.mimetype == _URLENCODED:
        # Parsed as a whole, with an object for each field and escape: the limit is that of one multipart field.
        sizes = (request.max_content_length, request.max_form_memory_size)
        request.max_content_length = min((size for size in sizes if size is not None), default=None)
    elif "_user_id" in session:
        apply_upload_limit()


def _upload_limit() -> str | None:
    """Return the name of the setting with the upload limit of the view, or None if the general limit applies."""
    setting: str | None = getattr(current_app.view_functions.get(request.endpoint or ""), _LIMIT, None)
    return setting


def _refuse_json() -> None:
    # Flask-WTF would read it as a form, and deeply nested JSON would cause a 500.
    if request.is_json and not request.path.startswith("/api/"):
        abort(400)


def _refuse_broken_encoding() -> None:
    # Werkzeug would silently keep such bytes escaped (%ED%A0%80), so that the stored text would differ.
    try:
        if request.mimetype == _URLENCODED:
            _check_escaped(request.get_data())
        elif request.mimetype == "multipart/form-data" and not is_upload():
            request.get_data().decode()
    except UnicodeDecodeError:
        abort(400, _("The form has text that is not valid UTF-8, or half a character. Nothing was changed."))


def _check_escaped(form: bytes) -> None:
    """Raise UnicodeDecodeError if a urlencoded `form` is not UTF-8. Decode in slices, since each % needs an object."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for piece in _SLICE.finditer(form):
        decoder.decode(unquote_to_bytes(piece[0]))
    decoder.decode(b"", final=True)


def _add_headers(response: Response) -> Response:
    for name, value in current_app.extensions["security_headers"].items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", f"max-age={YEAR}")
    # Not current_user, which would query the database, also for static files and while the database is unavailable.
    if "Cache-Control" not in response.headers and (request.authorization or "_user_id" in session):
        response.headers["Cache-Control"] = "no-store"
    return response


def fingerprint(purpose: str, *values: str) -> str:
    """Return an HMAC of `values` with ``SECRET_KEY``. It does not reveal them and differs for another `purpose`."""
    key: str = current_app.config["SECRET_KEY"]
    return hmac.digest(key.encode(), "\0".join((purpose, *values)).encode(), "sha256").hex()[:FINGERPRINT_LENGTH]


class LinkExpired(Exception):
    """Raised if a signed link is genuine but too old."""


class LinkInvalid(Exception):
    """Raised if a signed link was not created here, was already used, or its object has changed since."""


def sign(purpose: str, value: Any) -> str:
    """Return a token for a link, with `value` and the current time, signed for `purpose`."""
    return _serializer(purpose).dumps(value)


def read_signed(purpose: str, token: str, lifetime: int) -> Any:
    """Return the value that sign() put into `token` within the last `lifetime` seconds.

    Raises LinkExpired and LinkInvalid.
    """
    try:
        value, signed_at = _serializer(purpose).loads(token, return_timestamp=True)
    except BadSignature:
        raise LinkInvalid from None
    # Not by `max_age`, which refuses the links of a machine whose clock is ahead.
    if utcnow() - signed_at > timedelta(seconds=lifetime):
        raise LinkExpired
    return value


def _serializer(purpose: str) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt=purpose)
