"""The language of a page: what the reader's browser asks for, of the languages that we have."""

from __future__ import annotations

from flask import current_app, has_request_context, request
from flask_babel import get_locale


def select() -> str | None:
    """The best of the configured LANGUAGES for this request; None outside of one, where the default holds."""
    if not has_request_context():
        return None
    return request.accept_languages.best_match(current_app.config["LANGUAGES"])


def language_tag() -> str:
    """The language of what is being made, as HTML names it (``pt-BR``)."""
    return str(get_locale() or "en").replace("_", "-")
