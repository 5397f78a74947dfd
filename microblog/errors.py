"""Error responses: a page with a sentence, or problem JSON from the API.

Error pages are rendered without context processors, so that they need neither the database nor Redis.
"""

from __future__ import annotations

import logging
import math
import time
from datetime import timedelta
from typing import Any

import orjson
from flask import Flask, Response, current_app, make_response, request
from flask_babel import format_timedelta
from flask_babel import gettext as _
from flask_limiter import RateLimitExceeded
from flask_wtf.csrf import CSRFError
from redis.exceptions import RedisError
from werkzeug.exceptions import HTTPException, ServiceUnavailable, default_exceptions
from werkzeug.wrappers import Response as AnyResponse

from microblog.database import DatabaseUnavailable
from microblog.extensions import db, limiter
from microblog.security import is_upload
from microblog.storage import StorageUnavailable

logger = logging.getLogger(__name__)

RETRY_AFTER = 5  # seconds after which a client should retry while the database or the storage is unavailable


def init_app(app: Flask) -> None:
    """Register the handlers of HTTP errors and of an unavailable database or storage."""
    app.register_error_handler(HTTPException, error_response)
    app.register_error_handler(DatabaseUnavailable, _database_unavailable)
    app.register_error_handler(StorageUnavailable, _storage_unavailable)


def error_response(error: HTTPException) -> AnyResponse:
    """Return the response for `error`: JSON under /api/, otherwise a page."""
    if error.response is not None:  # abort() was called with a response
        return current_app.make_response(error.response)
    return problem(error) if request.path.startswith("/api/") else _page(error)


def problem(error: HTTPException, **members: Any) -> Response:
    """Return `error` as ``application/problem+json`` (RFC 9457), with further `members` such as ``errors``."""
    body = {"type": "about:blank", "title": error.name, "status": error.code, "detail": _message(error)}
    # Errors of a list have the items' indices as keys (OPT_NON_STR_KEYS). Messages may be lazy strings (default=str).
    json = orjson.dumps(body | members, default=str, option=orjson.OPT_NON_STR_KEYS)
    response = current_app.response_class(json, error.code)
    response.content_type = "application/problem+json"
    return _with_headers_of(error, response)


def _page(error: HTTPException) -> Response:
    template = current_app.jinja_env.get_template("errors/error.html")
    html = template.render(code=error.code, title=_title(error), message=_message(error), draft=_draft())
    return _with_headers_of(error, make_response(html, error.code))


def _with_headers_of(error: HTTPException, response: Response) -> Response:
    """Copy the other headers of the error: Allow, Retry-After, WWW-Authenticate."""
    for name, value in error.get_headers():
        if name != "Content-Type":
            response.headers[name] = value
    return response


def _database_unavailable(error: DatabaseUnavailable) -> AnyResponse:
    logger.error("the database is unavailable; the request is answered with 503", exc_info=error)
    db.session.rollback()
    return error_response(ServiceUnavailable(retry_after=RETRY_AFTER))


def _storage_unavailable(error: StorageUnavailable) -> AnyResponse:
    logger.error("the storage is unavailable; the request is answered with 503", exc_info=error)
    sentence = _("The storage of files does not answer right now. Nothing is lost: try again in a few seconds.")
    return error_response(ServiceUnavailable(sentence, retry_after=RETRY_AFTER))


def _title(error: HTTPException) -> str:
    titles: dict[int, str] = {
        400: _("That did not work"),
        401: _("Please sign in"),
        403: _("Not allowed"),
        404: _("Not found"),
        405: _("Not this way"),
        410: _("Gone"),
        413: _("Too large"),
        429: _("Too many attempts"),
        500: _("Something broke"),
        502: _("Somebody else failed"),
        503: _("Away for a moment"),
    }
    return titles.get(error.code or 500) or titles[500 if (error.code or 500) >= 500 else 400]


def _message(error: HTTPException) -> str:
    """Return one sentence for the user: the description passed by the code that raised `error`, or its status's."""
    if isinstance(error, CSRFError):
        return str(_("The page was open too long, or the form came from elsewhere. Open it again and retry."))
    if isinstance(error, RateLimitExceeded):  # its description is "10 per 1 minute", not a sentence
        return str(_("You have tried this too often. Try again %(when)s.", when=_when_again(error)))
    standard = default_exceptions.get(error.code or 500)
    description = error.description
    if description and (standard is None or description != standard.description):
        return str(description)
    messages: dict[int, str] = {
        400: _("The request could not be understood. Nothing was changed."),
        401: _("This is only for those who are signed in."),
        403: _("You may not do this."),
        404: _("There is nothing at this address."),
        405: _("This address does not take such a request."),
        410: _("This was here once, and is no longer."),
        413: _("What was sent is larger than this site takes."),
        500: _("That is our fault, not yours. It has been noted and will be looked into."),
        503: _("The database does not answer right now. Nothing is lost: try again in a few seconds."),
    }
    return messages.get(error.code or 500, str(description or error.name))


def _when_again(error: RateLimitExceeded) -> str:
    """Return when to try again, from Retry-After, in words such as “in 2 minutes”; rounded up."""
    hit = limiter.current_limit
    try:
        seconds = int(hit.reset_at - time.time()) if hit else 0
    except RedisError:  # unavailable since the request was counted; assume a whole period
        seconds = error.limit.limit.get_expiry()
    unit = max((unit for unit in (60, 3600) if unit <= seconds), default=1)
    delay = timedelta(seconds=max(1, math.ceil(seconds / unit) * unit))
    text: str = format_timedelta(delay, threshold=1, add_direction=True)
    return text


def _draft() -> str | None:
    """Return the submitted post or message, which was not stored, so that its author can copy it from the page."""
    if is_upload():
        return None
    try:
        return request.form.get("post") or request.form.get("message")
    except HTTPException:  # the body itself caused the error
        return None
