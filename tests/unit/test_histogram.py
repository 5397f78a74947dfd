"""DurationHistogram: the accuracy of its percentiles, and addition without loss."""

from __future__ import annotations

import json
import math
import random

import pytest

from microblog.monitoring.rollup import LONGEST, SHORTEST, DurationHistogram


def histogram_of(*durations: float) -> DurationHistogram:
    histogram = DurationHistogram()
    for duration in durations:
        histogram.observe(duration)
    return histogram


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_percentile_error_is_within_bound(share: float) -> None:
    durations = [random.lognormvariate(0, 2) for _ in range(5000)]

    estimate = histogram_of(*durations).percentile(share)

    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert estimate == pytest.approx(exact, rel=0.045)


def test_empty_histogram_has_no_mean_or_percentile() -> None:
    empty = DurationHistogram()

    assert (empty.count, empty.mean, empty.percentile(0.5)) == (0, None, None)


def test_at_most_is_exact_at_powers_of_two() -> None:
    histogram = histogram_of(0.5, 1.0, 1.0000001, 2.0, 4.0, 4.1)

    assert histogram.at_most([-2, -1, 0, 1, 2, 3]) == [0, 1, 2, 4, 5, 6]


def test_add_equals_one_histogram_of_all() -> None:
    durations = [random.expovariate(0.1) for _ in range(1000)]
    sum_of_two = histogram_of(*durations[:300])

    sum_of_two.add(histogram_of(*durations[300:]))

    assert sum_of_two.buckets == histogram_of(*durations).buckets
    assert sum_of_two.seconds == pytest.approx(sum(durations))


def test_out_of_range_durations_are_counted() -> None:
    histogram = histogram_of(-3, 0, 1e-9, 1e12)

    assert histogram.at_most([SHORTEST, LONGEST]) == [3, 4]
    assert histogram.seconds == pytest.approx(1e12)


def test_histogram_is_restored_from_json() -> None:
    histogram = histogram_of(0.1, 0.1, 7, 3600)

    restored = DurationHistogram.from_json(histogram.seconds, json.loads(json.dumps(histogram.to_json())))

    assert restored == histogram
