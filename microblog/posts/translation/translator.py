"""What a service that translates must be able to do, and how it says that it could not."""

from __future__ import annotations

from typing import Protocol

from flask import current_app


class TranslationError(Exception):
    """There is no translation. The message is for the log, and has nothing in it that was sent."""


class ServiceAway(TranslationError):
    """The service cannot be reached, takes too long, or has too much to do: it may work later."""


class ServiceRefused(TranslationError):
    """The service answered, and not with a translation: it will not be another answer soon."""


class Translator(Protocol):
    """A service that translates short texts."""

    def can(self, source: str, target: str) -> bool:
        """Whether it translates from `source` into `target` (both BCP 47): true, too, where that is not known."""

    def translate(self, text: str, source: str, target: str) -> str:
        """`text` from the language `source` into `target` (both BCP 47), as plain text.

        Takes some seconds at most. Raises TranslationError.
        """


def current_translator() -> Translator:
    """The current app's service, with connections of its own. There must be a ``TRANSLATE_URL``."""
    translator: Translator | None = current_app.extensions.get("translator")
    if translator is None:
        # Not before somebody asks: its HTTP client is nothing that each process need load.
        from microblog.posts.translation.libretranslate import LibreTranslate

        config = current_app.config
        translator = LibreTranslate(config["TRANSLATE_URL"], config["TRANSLATE_API_KEY"], config["TRANSLATE_TIMEOUT"])
        current_app.extensions["translator"] = translator
    return translator
