"""A figure: the measurements of both sides, their ratio, and its target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import ClassVar, Protocol

_COLUMNS = "{:<58} {:>12} {:>12} {:>7}  {:<11} {}"


class Line(Protocol):
    """A result of a benchmark, printed with str() below a header. `reached` is None if there is no target."""

    header: ClassVar[str]

    @property
    def reached(self) -> bool | None: ...


@dataclass(frozen=True)
class Figure:
    """One line of the table of ratios. `reached` is None if there is no target."""

    header: ClassVar[str] = _COLUMNS.format("what", "ours", "raw", "ratio", "target", "").rstrip()

    what: str
    ours: str
    raw: str = ""
    ratio: float | None = None
    target: str = ""
    reached: bool | None = None

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        verdict = {True: "ok", False: "missed", None: ""}[self.reached]
        return _COLUMNS.format(self.what, self.ours, self.raw, ratio, self.target, verdict).rstrip()


def compare(
    what: str,
    ours: float,
    raw: float,
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    """Return the figure `ours` ÷ `raw`, both in `unit`; the bounds, if any, are for the ratio."""
    ratio = ours / raw
    target, reached = _judge(ratio, at_most, at_least, "")
    return Figure(what, _quantity(ours, unit), _quantity(raw, unit), ratio, target, reached)


def state(what: str, ours: float, unit: str, *, at_most: float | None = None, at_least: float | None = None) -> Figure:
    """Return a figure without comparison; the bounds, if any, are in `unit`."""
    target, reached = _judge(ours, at_most, at_least, unit)
    return Figure(what, _quantity(ours, unit), target=target, reached=reached)


def side_by_side(ours: Callable[[], float], raw: Callable[[], float], *, rounds: int) -> tuple[float, float]:
    """Return the medians of `rounds` measurements of both sides; the order alternates from round to round."""
    results: dict[Callable[[], float], list[float]] = {ours: [], raw: []}
    order = [ours, raw]
    for _round in range(rounds):
        for measure in order:
            results[measure].append(measure())
        order.reverse()
    return median(results[ours]), median(results[raw])


def _judge(value: float, at_most: float | None, at_least: float | None, unit: str) -> tuple[str, bool | None]:
    if at_most is not None:
        return f"≤ {at_most:g} {unit}".rstrip(), value <= at_most
    if at_least is not None:
        return f"≥ {at_least:g} {unit}".rstrip(), value >= at_least
    return "", None


def _quantity(value: float, unit: str) -> str:
    digits = 0 if value == int(value) or abs(value) >= 100 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()
