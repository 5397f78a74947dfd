"""Charts of task counts and durations, as SVG without scripts and as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import pygal
from flask_babel import format_datetime, format_decimal
from flask_babel import gettext as _
from pygal.style import Style

from microblog.clock import utcnow
from microblog.monitoring import statistics
from microblog.monitoring.statistics import Hour
from microblog.taskqueue import states


@dataclass(frozen=True)
class Period:
    """The length of a chart and of its buckets (a whole number of hours that divides a day)."""

    length: timedelta
    span: timedelta


#: The periods, by their name in URLs.
PERIODS = {
    "day": Period(timedelta(days=1), timedelta(hours=1)),
    "week": Period(timedelta(days=7), timedelta(hours=6)),
    "month": Period(timedelta(days=30), timedelta(days=1)),
}


@dataclass
class Bucket:
    """Outcomes of all tasks that finished within a span of time.

    `counts` are by state, `failures` by task name. `waits` is the 95th percentile of the wait before the start, by task
    name, in seconds; if the span has several hours, that of the worst one.
    """

    begins: datetime
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(states.FINISHED, 0))
    failures: dict[str, int] = field(default_factory=dict)
    waits: dict[str, float] = field(default_factory=dict)

    def add(self, hour: Hour) -> None:
        """Add the outcomes of one task within one hour."""
        for state, count in hour.counts.items():
            self.counts[state] += count
        if failed := hour.counts[states.FAILURE]:
            self.failures[hour.name] = self.failures.get(hour.name, 0) + failed
        if hour.wait.p95 is not None:
            self.waits[hour.name] = max(self.waits.get(hour.name, 0.0), hour.wait.p95)


def latest_buckets(period: Period) -> list[Bucket]:
    """Return the buckets of `period` up to now, oldest first, including empty ones.

    Raises DatabaseUnavailable.
    """
    now = utcnow()
    last = _beginning(now, period.span)
    first = last - period.length + period.span
    return sum_buckets(statistics.by_hour(first, now), first, last, period.span)


def sum_buckets(hours: Iterable[Hour], first: datetime, last: datetime, length: timedelta) -> list[Bucket]:
    """Return the buckets that begin from `first` to `last`, each of `length`, with the outcomes of `hours`."""
    buckets = {first + n * length: Bucket(first + n * length) for n in range((last - first) // length + 1)}
    for hour in hours:
        bucket = buckets.get(_beginning(hour.hour, length))
        if bucket is not None:
            bucket.add(hour)
    return list(buckets.values())


def _beginning(time: datetime, length: timedelta) -> datetime:
    """Return the beginning of the bucket that contains `time`."""
    midnight = time.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (time - midnight) // length * length


Values = Sequence[float | None]

WIDTH, HEIGHT = 400, 220  # pixels; a page scales the chart to the available width
MAX_NAMES = 5  # task names in one chart
LEGENDS_IN_A_ROW = 3
LABELS = 4  # labels on the time axis
_DAY = timedelta(days=1)

# The image is a separate document, so that it needs its own rules for the user's colour scheme.
_THEME = """inline:
svg { --quiet: #59636e; --line: #dfe3e8; --a: #3553c9; --b: #c2410c; --c: #8a94a0; --d: #0b7a6f; --e: #7a3fb0; }
@media (prefers-color-scheme: dark) {
  svg { --quiet: #9aa6b4; --line: #303844; --a: #8aa2ff; --b: #ff8a5c; --c: #66717e; --d: #3fbfae; --e: #c08af0; }
}
.bar-graph .rect, .stackedbar-graph .rect { stroke: none; }
.line-graph .line.reactive { stroke-linejoin: round; stroke-linecap: round; }
.axis > .line, .axis path.line { stroke: var(--line); }
"""
_STYLE = Style(
    background="transparent",
    plot_background="transparent",
    foreground="var(--quiet)",
    foreground_strong="var(--quiet)",
    foreground_subtle="var(--line)",
    guide_stroke_color="var(--line)",
    major_guide_stroke_color="var(--line)",
    guide_stroke_dasharray="none",
    major_guide_stroke_dasharray="none",
    font_family="system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
    label_font_size=11,
    major_label_font_size=11,
    legend_font_size=12,
    no_data_font_size=14,
    opacity="1",
    stroke_opacity="1",
    stroke_width="2",
    transition="0s",
    colors=("var(--a)", "var(--b)", "var(--c)", "var(--d)", "var(--e)"),
)
_OPTIONS: dict[str, Any] = {
    "style": _STYLE,
    "css": ["file://style.css", "file://graph.css", _THEME],
    "js": [],
    "no_prefix": True,
    "width": WIDTH,
    "height": HEIGHT,
    "margin": 2,
    "margin_right": 8,
    "spacing": 6,
    "min_scale": 2,
    "max_scale": 5,
    "legend_at_bottom": True,
    "legend_box_size": 10,
    "truncate_legend": 20,
    "truncate_label": -1,
    "show_minor_x_labels": False,
    "include_x_axis": True,
    "allow_interruptions": True,
    "dots_size": 1.5,
}


@dataclass(frozen=True)
class Chart:
    """A chart, as an image and as a table. Each line or bar in `series` has one value for each of `times`."""

    title: str
    times: list[datetime]
    series: dict[str, Values]
    format: Callable[[float], str]
    draw: type[pygal.graph.graph.Graph]

    @cached_property
    def empty(self) -> bool:
        """Return whether there are no values other than 0."""
        return not any(value for values in self.series.values() for value in values)

    @property
    def labels(self) -> list[str]:
        """Return the labels of the buckets, in UTC."""
        span = self.times[1] - self.times[0]
        pattern = "dd MMM" if span >= _DAY else "HH:mm" if span * len(self.times) <= _DAY else "dd MMM HH:mm"
        return [format_datetime(time, pattern, rebase=False) for time in self.times]

    @property
    def image(self) -> str:
        """Return the image for an ``<img>``: SVG in a data URL, so that image and table show the same data."""
        labels = self.labels
        columns = min(len(self.series), LEGENDS_IN_A_ROW)
        chart = self.draw(**_OPTIONS, value_formatter=self.format, legend_at_bottom_columns=columns)
        if self.format is _whole:
            chart.order_min = 0  # no ticks between whole numbers, since their labels would be rounded
        chart.x_labels = labels
        chart.x_labels_major = labels[:: -(-len(labels) // LABELS)]
        for name, values in self.series.items():
            chart.add(name, values)
        chart.add_xml_filter(_without_scripts)
        url: str = chart.render_data_uri()
        return url

    def rows(self) -> list[tuple[str, list[str]]]:
        """Return the table: the label and the formatted values of each time, newest first, without empty rows."""
        columns = zip(*self.series.values(), strict=True)
        table = [
            (label, ["" if value is None else self.format(value) for value in values])
            for label, values in zip(self.labels, columns, strict=True)
            if any(values)
        ]
        return table[::-1]


def charts_of(buckets: list[Bucket]) -> list[Chart]:
    """Return the charts of at least two buckets of the same length."""
    times = [bucket.begins for bucket in buckets]
    return [
        Chart(_("Finished tasks"), times, _throughput(buckets), _whole, pygal.StackedBar),
        Chart(_("Wait before the start, 95 % are below"), times, _waits(buckets), _seconds, pygal.Line),
        Chart(_("Failures by task"), times, _failures(buckets), _whole, pygal.StackedBar),
    ]


def _throughput(buckets: list[Bucket]) -> dict[str, Values]:
    names = {states.SUCCESS: _("Succeeded"), states.FAILURE: _("Failed"), states.REVOKED: _("Cancelled")}
    return {name: [bucket.counts[state] for bucket in buckets] for state, name in names.items()}


def _waits(buckets: list[Bucket]) -> dict[str, Values]:
    return _by_name([bucket.waits for bucket in buckets], missing=None)


def _failures(buckets: list[Bucket]) -> dict[str, Values]:
    return _by_name([bucket.failures for bucket in buckets], missing=0)


def _by_name(buckets: Sequence[Mapping[str, float]], missing: float | None) -> dict[str, Values]:
    """Return a series for each of the MAX_NAMES names with the greatest values."""
    greatest: dict[str, float] = {}
    for values in buckets:
        for name, value in values.items():
            greatest[name] = max(value, greatest.get(name, 0))
    names = sorted(sorted(greatest, key=greatest.__getitem__, reverse=True)[:MAX_NAMES])
    return {name: [values.get(name, missing) for values in buckets] for name in names}


def _whole(value: float) -> str:
    text: str = format_decimal(round(value))
    return text


def _seconds(value: float) -> str:
    """Format a duration for an axis, in one unit: output.format_duration() would show ticks below 10 ms as 0."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if value >= length:
            return f"{value / length:.3g} {unit}"
    return f"{value * 1000:.3g} ms" if value else "0"


def _without_scripts(root: Any) -> Any:
    """Remove the settings that pygal includes for its script, which is not included."""
    for parent in root.iter():
        for script in parent.findall("script"):
            parent.remove(script)
    return root
