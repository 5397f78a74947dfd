"""Which languages a service translates between, and by which codes it knows them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

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
