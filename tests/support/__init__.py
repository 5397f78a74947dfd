"""Code that the tests share."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def not_none(value: T | None) -> T:
    """Return `value`. Raises AssertionError if it is None."""
    assert value is not None
    return value
