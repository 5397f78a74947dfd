"""What is put into addresses, queries and bodies: what is known to exist, what is nearly right, and what is hostile."""

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
class Known:
    """What exists, by the kind of address that it belongs in."""

    names: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)


def text(chance: random.Random, known: Known) -> str:
    """Some text: of what exists, of what is nearly right, of what is hostile, or of random characters."""
    kind = chance.random()
    if kind < 0.35:
        return chance.choice(chance.choice([known.names, known.numbers, known.tasks, known.secrets]) or TEXTS)
    if kind < 0.5:
        return chance.choice(chance.choice([NUMBERS, KEYS, TIMES]))
    if kind < 0.9:
        return chance.choice(TEXTS)
    return "".join(_character(chance) for _ in range(chance.randrange(1, 40)))


def json_value(chance: random.Random, known: Known, depth: int = 0) -> Any:
    """Some JSON."""
    kind = chance.randrange(10)
    if kind < 5 or depth > 3:
        return text(chance, known)
    if kind == 5:
        return chance.choice([None, True, False, 0, -1, 1, 2**31, 2**63, 2**64 - 1, 1.5, 1e300])
    if kind == 6:
        return [json_value(chance, known, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 7:
        return {text(chance, known): json_value(chance, known, depth + 1) for _ in range(chance.randrange(4))}
    return chance.choice(["cat-dog-fish", "hello", "susan@example.com", 5, True])


def argument(name: str, converter: str, chance: random.Random, known: Known) -> str:
    """What goes into an address in the place of the argument called `name`, mostly what belongs there."""
    if chance.random() < 0.7:
        by_name = known.names if "user" in name or name == "followed" else known.tasks if "task" in name else None
        belongs = known.numbers if converter == "int" else by_name
        if belongs:
            return chance.choice(belongs)
    if converter == "int" and chance.random() < 0.7:
        return chance.choice(NUMBERS)
    return text(chance, known)


def _character(chance: random.Random) -> str:
    code = chance.choice([chance.randrange(0x80), chance.randrange(0x800), chance.randrange(0x110000)])
    return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)
