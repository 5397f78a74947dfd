"""Charts of task counts and durations as SVG that needs no script, with the numbers as a table."""

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


#: By the name that a page's address has for each.
PERIODS = {
    "day": Period(timedelta(days=1), timedelta(hours=1)),
    "week": Period(timedelta(days=7), timedelta(hours=6)),
    "month": Period(timedelta(days=30), timedelta(days=1)),
}


@dataclass
class Bucket:
    """Outcomes of all tasks that finished within a span of time.

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


def latest_buckets(period: Period) -> list[Bucket]:
    """The spans of `period` up to now, oldest first, also those in which nothing happened.

    Raises DatabaseUnavailable.
    """
    now = utcnow()
    last = _beginning(now, period.span)
    first = last - period.length + period.span
    return sum_buckets(statistics.by_hour(first, now), first, last, period.span)


def sum_buckets(hours: Iterable[Hour], first: datetime, last: datetime, length: timedelta) -> list[Bucket]:
    """The spans that begin from `first` to `last`, each `length` after the one before, with what `hours` tell."""
    spans = {first + n * length: Bucket(first + n * length) for n in range((last - first) // length + 1)}
    for hour in hours:
        span = spans.get(_beginning(hour.hour, length))
        if span is not None:
            span.take(hour)
    return list(spans.values())


def _beginning(moment: datetime, length: timedelta) -> datetime:
    """Return the beginning of the bucket that contains `moment`."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (moment - midnight) // length * length


Values = Sequence[float | None]

WIDTH, HEIGHT = 400, 220  # pixels; a page shows it as wide as there is room
MOST_NAMES = 5  # of tasks that one chart tells apart
LEGENDS_IN_A_ROW = 3
LABELS = 4  # times named under a chart
_DAY = timedelta(days=1)

# The picture is a document of its own: it follows the reader's theme by itself, as the page does.
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
_LOOK: dict[str, Any] = {
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
    """One picture, and the same as a table: `series` has for each line or bar a value for each of `moments`."""

    title: str
    moments: list[datetime]
    series: dict[str, Values]
    format: Callable[[float], str]
    draw: type[pygal.graph.graph.Graph]

    @cached_property
    def empty(self) -> bool:
        """Return whether there is nothing to see."""
        return not any(value for values in self.series.values() for value in values)

    @property
    def labels(self) -> list[str]:
        """Return the labels of the buckets, in UTC."""
        span = self.moments[1] - self.moments[0]
        form = "dd MMM" if span >= _DAY else "HH:mm" if span * len(self.moments) <= _DAY else "dd MMM HH:mm"
        return [format_datetime(moment, form, rebase=False) for moment in self.moments]

    @property
    def image(self) -> str:
        """The picture, for an ``<img>``: SVG in a data URL, so that it and the table are of one moment."""
        labels = self.labels
        columns = min(len(self.series), LEGENDS_IN_A_ROW)
        chart = self.draw(**_LOOK, value_formatter=self.format, legend_at_bottom_columns=columns)
        if self.format is _whole:
            chart.order_min = 0  # no mark between whole numbers, which would be called like one of them
        chart.x_labels = labels
        chart.x_labels_major = labels[:: -(-len(labels) // LABELS)]
        for name, values in self.series.items():
            chart.add(name, values)
        chart.add_xml_filter(_without_scripts)
        address: str = chart.render_data_uri()
        return address

    def rows(self) -> list[tuple[str, list[str]]]:
        """The table: for each moment what it is called, and the values in words; newest first, empty ones left out."""
        columns = zip(*self.series.values(), strict=True)
        table = [
            (label, ["" if value is None else self.format(value) for value in values])
            for label, values in zip(self.labels, columns, strict=True)
            if any(values)
        ]
        return table[::-1]


def charts_of(spans: list[Bucket]) -> list[Chart]:
    """The charts of what happened in `spans`: at least two, of one length."""
    moments = [span.begins for span in spans]
    return [
        Chart(_("Finished tasks"), moments, _throughput(spans), _whole, pygal.StackedBar),
        Chart(_("Wait before the start, 95 % are below"), moments, _waits(spans), _seconds, pygal.Line),
        Chart(_("Failures by task"), moments, _failures(spans), _whole, pygal.StackedBar),
    ]


def _throughput(spans: list[Bucket]) -> dict[str, Values]:
    names = {states.SUCCESS: _("Succeeded"), states.FAILURE: _("Failed"), states.REVOKED: _("Cancelled")}
    return {name: [span.counts[state] for span in spans] for state, name in names.items()}


def _waits(spans: list[Bucket]) -> dict[str, Values]:
    return _by_name([span.waits for span in spans], missing=None)


def _failures(spans: list[Bucket]) -> dict[str, Values]:
    return _by_name([span.failures for span in spans], missing=0)


def _by_name(spans: Sequence[Mapping[str, float]], missing: float | None) -> dict[str, Values]:
    """A series for each of the names with the greatest values."""
    greatest: dict[str, float] = {}
    for values in spans:
        for name, value in values.items():
            greatest[name] = max(value, greatest.get(name, 0))
    names = sorted(sorted(greatest, key=greatest.__getitem__, reverse=True)[:MOST_NAMES])
    return {name: [values.get(name, missing) for values in spans] for name in names}


def _whole(value: float) -> str:
    text: str = format_decimal(round(value))
    return text


def _seconds(value: float) -> str:
    """A length of time, short enough for an axis."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if value >= length:
            return f"{value / length:.3g} {unit}"
    return f"{value * 1000:.3g} ms" if value else "0"


def _without_scripts(root: Any) -> Any:
    """The picture without the settings that pygal leaves in it for its script, which is not there either."""
    for parent in root.iter():
        for script in parent.findall("script"):
            parent.remove(script)
    return root
