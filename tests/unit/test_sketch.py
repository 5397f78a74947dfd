"""Durations in buckets: how exact their percentiles are, and that nothing is lost when they are added."""

from __future__ import annotations

import json
import math
import random

import pytest

from microblog.monitoring.rollup import LONGEST, SHORTEST, DurationHistogram


def sketch_of(*durations: float) -> DurationHistogram:
    sketch = DurationHistogram()
    for duration in durations:
        sketch.observe(duration)
    return sketch


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_a_percentile_is_within_four_and_a_half_per_cent(share: float) -> None:
    durations = [random.lognormvariate(0, 2) for _ in range(5000)]

    estimate = sketch_of(*durations).percentile(share)

    true = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert estimate == pytest.approx(true, rel=0.045)


def test_of_nothing_there_is_nothing_to_tell() -> None:
    empty = DurationHistogram()

    assert (empty.count, empty.mean, empty.percentile(0.5)) == (0, None, None)


def test_how_many_are_at_most_a_power_of_two_is_exact() -> None:
    sketch = sketch_of(0.5, 1.0, 1.0000001, 2.0, 4.0, 4.1)

    assert sketch.at_most([-2, -1, 0, 1, 2, 3]) == [0, 1, 2, 4, 5, 6]


def test_sketches_add_up_as_if_all_had_been_counted_in_one() -> None:
    durations = [random.expovariate(0.1) for _ in range(1000)]
    sum_of_two = sketch_of(*durations[:300])

    sum_of_two.add(sketch_of(*durations[300:]))

    assert sum_of_two.buckets == sketch_of(*durations).buckets
    assert sum_of_two.seconds == pytest.approx(sum(durations))


def test_what_is_too_short_or_too_long_to_tell_is_counted_all_the_same() -> None:
    sketch = sketch_of(-3, 0, 1e-9, 1e12)

    assert sketch.at_most([SHORTEST, LONGEST]) == [3, 4]
    assert sketch.seconds == pytest.approx(1e12)


def test_it_survives_json() -> None:
    sketch = sketch_of(0.1, 0.1, 7, 3600)

    again = DurationHistogram.from_json(sketch.seconds, json.loads(json.dumps(sketch.to_json())))

    assert again == sketch
