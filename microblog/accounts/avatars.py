"""Avatars: symmetric patterns drawn as SVG paths, derived from the user's id.

They need neither a request nor a query, and do not change with the username.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

SIZE = 5  # cells per side
COLOURS = 12  # the number of colours in users.css
CELLS = range(6, 11)  # filled cells, of the 15 in the left three columns; neither nearly empty nor nearly full


class Avatar(NamedTuple):
    """The number of a colour, and a path in an SVG of SIZE × SIZE units."""

    colour: int
    path: str


@lru_cache(maxsize=10_000)
def avatar_of(user_id: int) -> Avatar:
    """Return the avatar of a user."""
    digest = hashlib.blake2b(str(user_id).encode(), digest_size=64).digest()
    words = [int.from_bytes(digest[n : n + 2]) for n in range(2, len(digest), 2)]
    # Each of the 31 words fits with a probability above 1/2, so the default is practically never used.
    bits = next((word for word in words if (word & 0x7FFF).bit_count() in CELLS), 0x2F5D)
    return Avatar(digest[0] % COLOURS, "".join(_run(x, y, width) for x, y, width in _runs(bits)))


def _runs(bits: int) -> list[tuple[int, int, int]]:
    """Return the filled cells as (x, y, width), with neighbours in the same row merged."""
    runs: list[tuple[int, int, int]] = []
    for y in range(SIZE):
        for x in range(SIZE):
            if not bits >> (y * 3 + min(x, SIZE - 1 - x)) & 1:
                continue
            if runs and runs[-1][1] == y and runs[-1][0] + runs[-1][2] == x:
                runs[-1] = (runs[-1][0], y, runs[-1][2] + 1)
            else:
                runs.append((x, y, 1))
    return runs


def _run(x: int, y: int, width: int) -> str:
    return f"M{x} {y}h{width}v1h-{width}z"
