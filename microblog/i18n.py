"""Locale and time zone of the current user, and the message catalogs.

A user's choice is stored in the profile, and in the session of each browser they sign in with; that of an anonymous
user only in the session. Code that loads a user calls use_locale_of(), so that this module does not query the database
and an error page has the right language while the database is unavailable.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Protocol

import pytz
from babel import Locale
from babel.core import get_global
from flask import Flask, current_app, g, has_request_context, request, session
from flask_babel import Babel, force_locale, format_date, format_datetime, format_decimal, get_locale, ngettext, refresh

logger = logging.getLogger(__name__)

SOURCE_LANGUAGE = "en"  # of the strings in the source, which have no catalog
SESSION_KEY = "language"

# Times between these can be converted to every time zone.
_EARLIEST, _LATEST = datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 29, tzinfo=UTC)


class LocalePreferences(Protocol):
    """A user with an optional choice of locale and time zone; None means no choice."""

    @property
    def locale(self) -> str | None:
        """One of the configured LANGUAGES."""

    @property
    def timezone(self) -> str | None:
        """An IANA time zone name."""


def init_app(app: Flask, babel: Babel) -> None:
    """Initialize `babel`, and register the template globals and filters for languages, zones and times."""
    babel.init_app(app, locale_selector=select, timezone_selector=chosen_zone)
    for language in set(app.config["LANGUAGES"]) - {SOURCE_LANGUAGE}:
        if not Path(app.root_path, "translations", language, "LC_MESSAGES", "messages.mo").exists():
            logger.warning("the catalog of %s is not compiled: run pybabel compile -d microblog/translations", language)
    app.jinja_env.globals |= {"language_tag": language_tag, "languages": languages, "chosen_zone": chosen_zone}
    app.jinja_env.filters |= {"moment": format_moment, "day": format_day}


def select() -> str | None:
    """Return the language of this request, one of LANGUAGES; None, for the default, outside of a request."""
    if not has_request_context():
        return None
    available: list[str] = current_app.config["LANGUAGES"]
    for chosen in (g.get("language"), session.get(SESSION_KEY)):
        if chosen in available:  # ignore a choice that is no longer offered
            return str(chosen)
    return request.accept_languages.best_match(available)


def chosen_zone() -> str | None:
    """Return the time zone that the user chose; None if the browser's zone applies."""
    zone: str | None = g.get("timezone")
    return zone if zone in pytz.all_timezones_set else None


def use_locale_of(reader: LocalePreferences) -> None:
    """Use the locale and time zone of `reader`, the request's user, for the rest of the request."""
    g.language, g.timezone = reader.locale, reader.timezone
    refresh()


def store_locale(language: str | None) -> None:
    """Store the choice of language in the session; None deletes it, so that Accept-Language applies."""
    if language is None:
        session.pop(SESSION_KEY, None)
    else:
        session[SESSION_KEY] = language
    refresh()


@contextmanager
def locale_of(reader: LocalePreferences) -> Iterator[None]:
    """Render text in the locale and time zone of `reader`; without a choice, in the current locale and UTC."""
    supported = reader.locale in current_app.config["LANGUAGES"]
    with force_locale(reader.locale if supported else get_locale()):
        previous = g.get("timezone")
        g.timezone = reader.timezone
        refresh()
        try:
            yield
        finally:
            g.timezone = previous
            refresh()


def language_tag() -> str:
    """Return the current language as a tag for HTML (``pt-BR``)."""
    return str(get_locale() or "en").replace("_", "-")


def languages() -> dict[str, str]:
    """Return the configured LANGUAGES, each with its name in that language."""
    names = {code: str(Locale.parse(code).display_name) for code in current_app.config["LANGUAGES"]}
    return {code: name[0].upper() + name[1:] for code, name in names.items()}


def zones() -> list[tuple[str, str]]:
    """Return all time zones, sorted by their names in the current locale: ``("Europe/Madrid", "Spain: Madrid")``."""
    return _zones(get_locale())


def format_moment(time: datetime) -> str:
    """Format `time`, which is aware, in the user's locale and time zone; without a chosen zone, in UTC and named so."""
    return f"{format_datetime(_clamp(time))}{'' if chosen_zone() else ' UTC'}"


def format_day(time: datetime) -> str:
    """Format the date of `time`, which is aware, in the user's locale and time zone."""
    text: str = format_date(_clamp(time))
    return text


def _clamp(time: datetime) -> datetime:
    return max(_EARLIEST, min(time, _LATEST))


@cache
def _zones(locale: Locale) -> list[tuple[str, str]]:
    countries = get_global("zone_territories")
    choices = []
    for zone in pytz.common_timezones:
        names = locale.time_zones.get(zone, {})
        city = names.get("city") or zone.rpartition("/")[2].replace("_", " ")
        country = locale.territories.get(countries.get(zone, ""))
        choices.append((zone, f"{country}: {city}" if country else zone))
    return sorted(choices, key=lambda one: one[1].casefold())


def progress_text(singular: str, plural: str, current: int, total: int | None) -> str:
    """Return the progress of a task for its user, from texts with ``%(current)s`` and ``%(total)s``."""
    numbers = {"current": format_decimal(current), "total": format_decimal(total or 0)}
    text: str = ngettext(singular, plural, total or 0, **numbers)
    return text
