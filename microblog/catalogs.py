"""The translations, read from the files that translators edit: nothing is compiled, so nothing can be out of date."""

from __future__ import annotations

from functools import cached_property
from io import BytesIO
from pathlib import Path
from threading import Lock

import flask_babel
from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations
from flask_babel import get_babel, get_locale


class Catalogs(flask_babel.Domain):
    """The messages of each language, read when the first reader asks for it (some 50 ms) and kept."""

    def __init__(self) -> None:
        super().__init__()
        self._reading = Lock()

    def get_translations(self) -> NullTranslations:
        """The messages of the language in force; outside of an app context, and for English, the sources' own."""
        locale = get_locale()
        if locale is None:
            return NullTranslations()
        directories = tuple(get_babel().translation_directories)
        key = (str(locale), directories)
        if key not in self.cache:
            with self._reading:
                if key not in self.cache:
                    self.cache[key] = _read(locale, directories)
        translations: NullTranslations = self.cache[key]
        return translations


class Babel(flask_babel.Babel):
    """Flask-Babel, over these catalogs."""

    @cached_property
    def domain_instance(self) -> Catalogs:
        """The messages of the interface."""
        return Catalogs()


def path_of(language: str, directory: str | Path) -> Path:
    """Where the catalog of `language` is, in a `directory` of translations."""
    return Path(directory, language, "LC_MESSAGES", "messages.po")


def _read(locale: Locale, directories: tuple[str, ...]) -> NullTranslations:
    for directory in directories:
        path = path_of(str(locale), directory)
        if path.exists():
            with path.open("rb") as source:
                catalog = read_po(source, locale)
            compiled = BytesIO()
            write_mo(compiled, catalog)
            compiled.seek(0)
            return Translations(compiled)
    return NullTranslations()
