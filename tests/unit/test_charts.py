"""Charts: the values drawn are the values counted, and each SVG image is self-contained."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from flask_babel import Babel

from microblog.monitoring.statistics import Hour, Times
from microblog.monitoring.web import charts
from microblog.monitoring.web.charts import Bucket

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _request_context() -> Iterator[None]:
    """Push a request context, which the translation of titles and legends needs."""
    app = Flask(__name__)
    Babel(app)
    with app.test_request_context():
        yield


def hour(offset: int, name: str, succeeded: int = 0, failed: int = 0, wait: float | None = None) -> Hour:
    counts = {"SUCCESS": succeeded, "FAILURE": failed, "REVOKED": 0}
    times = Times(succeeded + failed, wait, wait, wait, wait)
    return Hour(hour=MIDNIGHT + offset * HOUR, name=name, counts=counts, attempts=0, crashes=0, wait=times, run=times)


def day(*hours: Hour, span: timedelta = HOUR) -> list[Bucket]:
    return charts.sum_buckets(hours, MIDNIGHT, MIDNIGHT + timedelta(days=1) - span, span)


def decode_svg(chart: charts.Chart) -> str:
    prefix, _comma, encoded = chart.image.partition(",")
    assert prefix == "data:image/svg+xml;charset=utf-8;base64"
    return base64.b64decode(encoded).decode()


def test_buckets_sum_tasks_and_hours() -> None:
    hours = [hour(1, "a", succeeded=2, wait=1.0), hour(1, "b", failed=3), hour(5, "a", succeeded=4, wait=9.0)]

    hourly, quarterly = day(*hours), day(*hours, span=6 * HOUR)

    assert [span.counts["SUCCESS"] for span in hourly[:6]] == [0, 2, 0, 0, 0, 4]
    assert len(quarterly) == 4
    assert quarterly[0].counts == {"SUCCESS": 6, "FAILURE": 3, "REVOKED": 0}
    assert quarterly[0].failures == {"b": 3}
    assert quarterly[0].waits == {"a": 9.0}


def test_buckets_ignore_hours_outside_period() -> None:
    assert all(not any(span.counts.values()) for span in day(hour(-1, "a", succeeded=1), hour(24, "a", succeeded=1)))


def test_chart_rows_match_series_newest_first() -> None:
    finished, waits, failures = charts.charts_of(
        day(hour(1, "a", succeeded=1200, wait=90.0), hour(2, "b", failed=3, wait=0.004))
    )

    assert finished.rows() == [("02:00", ["0", "3", "0"]), ("01:00", ["1,200", "0", "0"])]
    assert list(waits.series) == ["a", "b"]
    assert waits.rows() == [("02:00", ["", "4 ms"]), ("01:00", ["1.5 min", ""])]
    assert failures.rows() == [("02:00", ["3"])]


def test_chart_has_series_of_largest_names_only() -> None:
    _finished, _waits, failures = charts.charts_of(day(*(hour(1, f"task{n}", failed=n) for n in range(1, 10))))

    assert list(failures.series) == ["task5", "task6", "task7", "task8", "task9"]


def test_svg_is_self_contained_and_follows_theme() -> None:
    for chart in charts.charts_of(day(hour(1, "<b>a & b</b>", succeeded=3, failed=2, wait=0.5))):
        svg = decode_svg(chart)
        assert "<script" not in svg
        assert "<b>" not in svg
        assert "prefers-color-scheme: dark" in svg or "prefers-color-scheme:dark" in svg
        assert [link for link in ("href=", "@import", "url(", "<image") if link in svg] == []


def test_bucket_labels_are_unique_in_each_period() -> None:
    for period in charts.PERIODS.values():
        count = period.length // period.span
        spans = charts.sum_buckets([], MIDNIGHT, MIDNIGHT + (count - 1) * period.span, period.span)
        labels = charts.charts_of(spans)[0].labels
        assert len(set(labels)) == len(labels) == count


def test_charts_are_empty_without_data() -> None:
    assert all(chart.empty for chart in charts.charts_of(day()))
