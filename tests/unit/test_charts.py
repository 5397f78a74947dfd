"""Charts: what is drawn is what was counted, and a picture needs nothing but itself."""

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
def _words() -> Iterator[None]:
    """Titles and legends are translated, and so need an application."""
    app = Flask(__name__)
    Babel(app)
    with app.test_request_context():
        yield


def hour(after: int, name: str, succeeded: int = 0, failed: int = 0, wait: float | None = None) -> Hour:
    counts = {"SUCCESS": succeeded, "FAILURE": failed, "REVOKED": 0}
    times = Times(succeeded + failed, wait, wait, wait, wait)
    return Hour(hour=MIDNIGHT + after * HOUR, name=name, counts=counts, attempts=0, crashes=0, wait=times, run=times)


def day(*hours: Hour, span: timedelta = HOUR) -> list[Bucket]:
    return charts.sum_buckets(hours, MIDNIGHT, MIDNIGHT + timedelta(days=1) - span, span)


def picture(chart: charts.Chart) -> str:
    beginning, _comma, encoded = chart.image.partition(",")
    assert beginning == "data:image/svg+xml;charset=utf-8;base64"
    return base64.b64decode(encoded).decode()


def test_tasks_of_an_hour_are_summed_and_hours_to_longer_spans() -> None:
    hours = [hour(1, "a", succeeded=2, wait=1.0), hour(1, "b", failed=3), hour(5, "a", succeeded=4, wait=9.0)]

    hourly, quarterly = day(*hours), day(*hours, span=6 * HOUR)

    assert [span.counts["SUCCESS"] for span in hourly[:6]] == [0, 2, 0, 0, 0, 4]
    assert len(quarterly) == 4
    assert quarterly[0].counts == {"SUCCESS": 6, "FAILURE": 3, "REVOKED": 0}
    assert quarterly[0].failures == {"b": 3}
    assert quarterly[0].waits == {"a": 9.0}


def test_what_lies_outside_is_left_out() -> None:
    assert all(not any(span.counts.values()) for span in day(hour(-1, "a", succeeded=1), hour(24, "a", succeeded=1)))


def test_a_chart_and_its_table_have_the_same_figures_newest_first() -> None:
    finished, waits, failures = charts.charts_of(
        day(hour(1, "a", succeeded=1200, wait=90.0), hour(2, "b", failed=3, wait=0.004))
    )

    assert finished.rows() == [("02:00", ["0", "3", "0"]), ("01:00", ["1,200", "0", "0"])]
    assert list(waits.series) == ["a", "b"]
    assert waits.rows() == [("02:00", ["", "4 ms"]), ("01:00", ["1.5 min", ""])]
    assert failures.rows() == [("02:00", ["3"])]


def test_only_the_names_with_the_greatest_values_are_told_apart() -> None:
    _finished, _waits, failures = charts.charts_of(day(*(hour(1, f"task{n}", failed=n) for n in range(1, 10))))

    assert list(failures.series) == ["task5", "task6", "task7", "task8", "task9"]


def test_a_picture_asks_for_nothing_runs_nothing_and_follows_the_theme() -> None:
    for chart in charts.charts_of(day(hour(1, "<b>a & b</b>", succeeded=3, failed=2, wait=0.5))):
        svg = picture(chart)
        assert "<script" not in svg
        assert "<b>" not in svg
        assert "prefers-color-scheme: dark" in svg or "prefers-color-scheme:dark" in svg
        assert [way for way in ("href=", "@import", "url(", "<image") if way in svg] == []


def test_each_span_of_a_month_has_a_name_of_its_own() -> None:
    for period in charts.PERIODS.values():
        count = period.length // period.span
        spans = charts.sum_buckets([], MIDNIGHT, MIDNIGHT + (count - 1) * period.span, period.span)
        labels = charts.charts_of(spans)[0].labels
        assert len(set(labels)) == len(labels) == count


def test_without_figures_there_is_no_picture_to_draw() -> None:
    assert all(chart.empty for chart in charts.charts_of(day()))
