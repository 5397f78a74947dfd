"""Locale and time zone of the current reader, and the message catalogs.

A user's choice is stored in the profile, and in the session of each browser they sign in with; that of an anonymous
reader only in the session. Code that loads a user calls use_locale_of(), so that nothing here queries the database and
an error page has the right language while the database is unavailable.
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
from flask_babel import Babel, force_locale, format_date, format_datetime, get_locale, refresh

logger = logging.getLogger(__name__)

SOURCE_LANGUAGE = "en"  # of the strings in the source, which have no catalog
SESSION_KEY = "language"

# Between these, every time there is can be told in every zone.
_EARLIEST, _LATEST = datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 29, tzinfo=UTC)


class Reader(Protocol):
    """A reader who may have chosen a locale and a time zone; None means no choice."""

    @property
    def locale(self) -> str | None:
        """One of the configured LANGUAGES."""

    @property
    def timezone(self) -> str | None:
        """As the IANA names it."""


def init_app(app: Flask, babel: Babel) -> None:
    """Bind `babel`, and tell templates which language and zone a page is in."""
    babel.init_app(app, locale_selector=select, timezone_selector=chosen_zone)
    for language in set(app.config["LANGUAGES"]) - {SOURCE_LANGUAGE}:
        if not Path(app.root_path, "translations", language, "LC_MESSAGES", "messages.mo").exists():
            logger.warning("the catalog of %s is not compiled: run pybabel compile -d microblog/translations", language)
    app.jinja_env.globals |= {"language_tag": language_tag, "languages": languages, "chosen_zone": chosen_zone}
    app.jinja_env.filters |= {"moment": format_moment, "day": format_day}


def select() -> str | None:
    """The language for this request, of the configured LANGUAGES; None outside of one, where the default holds."""
    if not has_request_context():
        return None
    offered: list[str] = current_app.config["LANGUAGES"]
    for chosen in (g.get("language"), session.get(SESSION_KEY)):
        if chosen in offered:  # one that is no longer offered counts for nothing
            return str(chosen)
    return request.accept_languages.best_match(offered)


def chosen_zone() -> str | None:
    """The zone that the reader chose; None if that is left to their browser."""
    zone: str | None = g.get("timezone")
    return zone if zone in pytz.all_timezones_set else None


def use_locale_of(reader: Reader) -> None:
    """Answer the rest of this request as `reader`, who is its user, wants it."""
    g.language, g.timezone = reader.locale, reader.timezone
    refresh()


def remember_locale(language: str | None) -> None:
    """Keep the choice of whoever uses this browser; None is for what the browser asks."""
    if language is None:
        session.pop(SESSION_KEY, None)
    else:
        session[SESSION_KEY] = language
    refresh()


@contextmanager
def addressed_to(reader: Reader) -> Iterator[None]:
    """A block in which text is made in `reader`'s locale and zone; without a choice, in the current locale and UTC."""
    offered = reader.locale in current_app.config["LANGUAGES"]
    with force_locale(reader.locale if offered else get_locale()):
        before = g.get("timezone")
        g.timezone = reader.timezone
        refresh()
        try:
            yield
        finally:
            g.timezone = before
            refresh()


def language_tag() -> str:
    """The language of what is being made, as HTML names it (``pt-BR``)."""
    return str(get_locale() or "en").replace("_", "-")


def languages() -> dict[str, str]:
    """The configured LANGUAGES, each with its name in itself."""
    names = {code: str(Locale.parse(code).display_name) for code in current_app.config["LANGUAGES"]}
    return {code: name[0].upper() + name[1:] for code, name in names.items()}


def zones() -> list[tuple[str, str]]:
    """All zones, in order of their names in the language in force: ``("Europe/Madrid", "Spain: Madrid")``."""
    return _zones(get_locale())


def format_moment(time: datetime) -> str:
    """`time`, aware, in the reader's form and zone; one that is not theirs is named."""
    return f"{format_datetime(_tellable(time))}{'' if chosen_zone() else ' UTC'}"


def format_day(time: datetime) -> str:
    """The day of `time`, aware, in the reader's form and zone."""
    text: str = format_date(_tellable(time))
    return text


def _tellable(time: datetime) -> datetime:
    return max(_EARLIEST, min(time, _LATEST))


@cache
def _zones(locale: Locale) -> list[tuple[str, str]]:
    countries = get_global("zone_territories")
    named = []
    for zone in pytz.common_timezones:
        known = locale.time_zones.get(zone, {})
        city = known.get("city") or zone.rpartition("/")[2].replace("_", " ")
        country = locale.territories.get(countries.get(zone, ""))
        named.append((zone, f"{country}: {city}" if country else zone))
    return sorted(named, key=lambda one: one[1].casefold())
