"""The interface of a translation service: languages, errors and the operations."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from flask import current_app

# What a tag of ours may be called by a service that does not know it: the detector says of a text that it is Norwegian,
# or Chinese, and not which.
_OTHER_NAMES = {"no": ("nb", "nn"), "pt": ("pb",), "zh": ("zh-Hans",)}


@dataclass(frozen=True)
class Languages:
    """By the code of each language that can be translated: the codes of those into which."""

    targets: Mapping[str, Collection[str]]

    def pair(self, source: str, target: str) -> tuple[str, str] | None:
        """The codes for translating from `source` into `target` (both BCP 47); None if that cannot be done."""
        code = _code_of(source, self.targets)
        if code is None:
            return None
        into = _code_of(target, self.targets[code])
        return None if into is None else (code, into)


def _code_of(tag: str, codes: Collection[str]) -> str | None:
    """The one of `codes` that is called as `tag` is, or by another name for it, or for a variety of it."""
    same = (name for name in (tag, *_OTHER_NAMES.get(tag, ())) if name in codes)
    varieties = (code for code in codes if code.partition("-")[0] == tag.partition("-")[0])
    return next(same, None) or next(varieties, None)


class TranslationError(Exception):
    """There is no translation. The message is for the log, and has nothing in it that was sent."""


class ServiceAway(TranslationError):
    """The service cannot be reached, takes too long, or has too much to do: it may work later."""


class ServiceRefused(TranslationError):
    """The service answered, and not with a translation: it will not be another answer soon."""


class Translator(Protocol):
    """A service that translates short texts."""

    def can(self, source: str, target: str) -> bool:
        """Return whether it translates from `source` into `target` (both BCP 47); True if that is unknown."""

    def translate(self, text: str, source: str, target: str) -> str:
        """`text` from the language `source` into `target` (both BCP 47), as plain text.

        Takes some seconds at most. Raises TranslationError.
        """


def current_translator() -> Translator:
    """The current app's service, with connections of its own. There must be a ``TRANSLATE_URL``."""
    translator: Translator | None = current_app.extensions.get("translator")
    if translator is None:
        # Imported with the first request: most processes need no HTTP client.
        from microblog.posts.translation.libretranslate import LibreTranslate

        config = current_app.config
        translator = LibreTranslate(config["TRANSLATE_URL"], config["TRANSLATE_API_KEY"], config["TRANSLATE_TIMEOUT"])
        current_app.extensions["translator"] = translator
    return translator
