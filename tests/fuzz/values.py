"""Values for URLs, queries and bodies: existing, almost valid, and hostile ones."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

NUMBERS = (
    "0",
    "1",
    "2",
    "-1",
    "+1",
    "1.0",
    "٣",
    "00",
    "1e3",
    "2147483647",
    "2147483648",
    "9223372036854775808",
    "9" * 40,
)
KEYS = (
    "2026-11-21T09:30:00.000000Z_42",
    "0001-01-01T00:00:00.000000Z_0",
    "9999-12-31T23:59:59.999999Z_999999999999999999",
    "2026-13-01T00:00:00.000000Z_1",
    "2026-11-21T09:30:00.000000Z_" + "9" * 30,
    "2026-11-21T09:30:00.000000Z_x",
)
TIMES = ("2026-11-21T09:30:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "1e400", "nan", "-1", "1970")
TEXTS = (
    *("", " ", "\t\n", "a", "me", "susan", "x" * 63, "x" * 141, "x" * 5000, ".", "..", "../../etc/passwd", "//x", "\\"),
    *(
        "' OR 1=1 --",
        '"; DROP TABLE user; --',
        "%",
        "_",
        "%00",
        "\0",
        "a\0b",
        "\x1b[2J",
        "a\r\nX-Injected: 1",
        "{{7*7}}",
    ),
    *(
        "<script>alert(1)</script>",
        "é",
        "e\u0301",
        "ß",
        "İ",
        "ﬀ",
        "한국어",
        "русский",
        "\u202e",
        "\ufeff",
        "\uffff",
        "🧑‍🚀",
    ),
    *(
        "true",
        "null",
        "[]",
        "{}",
        "NaN",
        "*",
        '"',
        "AND",
        "NEAR(",
        'a "b',
        "-",
        "^",
        ":",
        "x:y",
        "a@example.com",
        "a@b",
    ),
    *(
        "http://evil.example/",
        "//evil.example",
        "javascript:alert(1)",
        "/explore",
        "00000000-0000-0000-0000-000000000000",
    ),
)
BYTES = (
    b"",
    b"{",
    b"\xff\xfe",
    b"\0",
    b"[" * 2000,
    b'{"a":' * 500,
    b"a=b&a=c",
    b"%ED%A0%80",
    b'"\\ud800"',
    b"1" * 5000,
)
LANGUAGES = ("en", "es", "ko", "ru", "de;q=0.5, *", "tlh", "x" * 300, "¿".encode().decode("latin-1"), "en_US", "-")


@dataclass
class ExistingValues:
    """Existing values, by the kind of URL argument that they belong to."""

    names: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)


def text(rng: random.Random, existing: ExistingValues) -> str:
    """Return a text: an existing, almost valid or hostile value, or random characters."""
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(rng.choice([existing.names, existing.numbers, existing.tasks, existing.secrets]) or TEXTS)
    if kind < 0.5:
        return rng.choice(rng.choice([NUMBERS, KEYS, TIMES]))
    if kind < 0.9:
        return rng.choice(TEXTS)
    return "".join(_character(rng) for _ in range(rng.randrange(1, 40)))


def json_value(rng: random.Random, existing: ExistingValues, depth: int = 0) -> Any:
    """Return a random JSON value."""
    kind = rng.randrange(10)
    if kind < 5 or depth > 3:
        return text(rng, existing)
    if kind == 5:
        return rng.choice([None, True, False, 0, -1, 1, 2**31, 2**63, 2**64 - 1, 1.5, 1e300])
    if kind == 6:
        return [json_value(rng, existing, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 7:
        return {text(rng, existing): json_value(rng, existing, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice(["cat-dog-fish", "hello", "susan@example.com", 5, True])


def argument(name: str, converter: str, rng: random.Random, existing: ExistingValues) -> str:
    """Return a value for the URL argument `name`, usually one of the right kind."""
    if rng.random() < 0.7:
        by_name = existing.names if "user" in name or name == "followed" else existing.tasks if "task" in name else None
        belongs = existing.numbers if converter == "int" else by_name
        if belongs:
            return rng.choice(belongs)
    if converter == "int" and rng.random() < 0.7:
        return rng.choice(NUMBERS)
    return text(rng, existing)


def _character(rng: random.Random) -> str:
    code = rng.choice([rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x110000)])
    return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)
