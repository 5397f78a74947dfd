"""What happened over time, for charts: hours of single tasks, summed up to spans of all tasks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from microblog.clock import utcnow
from microblog.monitoring import statistics
from microblog.monitoring.statistics import Hour
from microblog.taskqueue import states


@dataclass(frozen=True)
class Period:
    """How far back a chart looks, and the length of its spans (a whole number of hours, of which a day has some)."""

    length: timedelta
    span: timedelta


#: By the name that a page's address has for each.
PERIODS = {
    "day": Period(timedelta(days=1), timedelta(hours=1)),
    "week": Period(timedelta(days=7), timedelta(hours=6)),
    "month": Period(timedelta(days=30), timedelta(days=1)),
}


@dataclass
class Span:
    """What became of all tasks that finished within a span of time.

    `counts` are by state, `failures` by the name of the task. `waits` is, by the name of the task, how long 95 % of
    its starts had waited at most, in seconds: that of the worst hour.
    """

    begins: datetime
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(states.FINISHED, 0))
    failures: dict[str, int] = field(default_factory=dict)
    waits: dict[str, float] = field(default_factory=dict)

    def take(self, hour: Hour) -> None:
        """Count in what became of one task within one hour."""
        for state, count in hour.counts.items():
            self.counts[state] += count
        if failed := hour.counts[states.FAILURE]:
            self.failures[hour.name] = self.failures.get(hour.name, 0) + failed
        if hour.wait.p95 is not None:
            self.waits[hour.name] = max(self.waits.get(hour.name, 0.0), hour.wait.p95)


def latest(period: Period) -> list[Span]:
    """The spans of `period` up to now, oldest first, also those in which nothing happened.

    Raises sqlalchemy.exc.DBAPIError.
    """
    now = utcnow()
    last = _beginning(now, period.span)
    first = last - period.length + period.span
    return summed(statistics.by_hour(first, now), first, last, period.span)


def summed(hours: Iterable[Hour], first: datetime, last: datetime, length: timedelta) -> list[Span]:
    """The spans that begin from `first` to `last`, each `length` after the one before, with what `hours` tell."""
    spans = {first + n * length: Span(first + n * length) for n in range((last - first) // length + 1)}
    for hour in hours:
        span = spans.get(_beginning(hour.hour, length))
        if span is not None:
            span.take(hour)
    return list(spans.values())


def _beginning(moment: datetime, length: timedelta) -> datetime:
    """When the span that `moment` lies in began."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (moment - midnight) // length * length
