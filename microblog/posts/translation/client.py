"""The translation service of the current app: its languages and errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import current_app

if TYPE_CHECKING:
    from microblog.posts.translation.libretranslate import LibreTranslate

# Codes that a service may use in place of a tag: the detector reports Norwegian or Chinese without the variety.
_OTHER_NAMES = {"no": ("nb", "nn"), "pt": ("pb",), "zh": ("zh-Hans",)}


@dataclass(frozen=True)
class Languages:
    """The languages of a service: `targets` maps each source language to its target languages, all by their codes."""

    targets: Mapping[str, Collection[str]]

    def pair(self, source: str, target: str) -> tuple[str, str] | None:
        """Return the service's codes for `source` and `target` (both BCP 47); None if it cannot translate them."""
        source_code = _code_of(source, self.targets)
        if source_code is None:
            return None
        target_code = _code_of(target, self.targets[source_code])
        return None if target_code is None else (source_code, target_code)


def _code_of(tag: str, codes: Collection[str]) -> str | None:
    """Return the code for `tag` among `codes`: the tag itself, another name of it, or a variety of it; else None."""
    same = (name for name in (tag, *_OTHER_NAMES.get(tag, ())) if name in codes)
    varieties = (code for code in codes if code.partition("-")[0] == tag.partition("-")[0])
    return next(same, None) or next(varieties, None)


class TranslationError(Exception):
    """Raised if there is no translation. The message is for the log and contains nothing that was sent."""


class TranslationUnavailable(TranslationError):
    """Raised if the service is unreachable, too slow or overloaded. A later request may succeed."""


class TranslationRejected(TranslationError):
    """Raised if the service responds without a translation. A later request is not expected to succeed."""


def current_translator() -> LibreTranslate:
    """Return the current app's translator, which has its own connections. Requires ``TRANSLATE_URL``."""
    translator: LibreTranslate | None = current_app.extensions.get("translator")
    if translator is None:
        # Imported on first use: most processes need no HTTP client.
        from microblog.posts.translation.libretranslate import LibreTranslate

        config = current_app.config
        translator = LibreTranslate(config["TRANSLATE_URL"], config["TRANSLATE_API_KEY"], config["TRANSLATE_TIMEOUT"])
        current_app.extensions["translator"] = translator
    return translator
