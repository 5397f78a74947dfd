"""Durations in buckets: small enough to keep for each hour, exact enough for percentiles, and they can be added."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PER_DOUBLING = 8  # buckets from one power of two seconds to the next
SHORTEST, LONGEST = -10, 24  # powers of two: 1 ms and half a year; what is shorter or longer counts as that


@dataclass
class Sketch:
    """How many durations lie in each bucket: bucket k has those above 2^((k-1)/8) and up to 2^(k/8) seconds.

    A percentile is thus within 4.5 % of the true one, and how many are at most a power of two is known exactly, as a
    Prometheus histogram asks. `seconds` is the sum of them all.
    """

    seconds: float = 0.0
    buckets: Counter[int] = field(default_factory=Counter)

    @classmethod
    def from_json(cls, seconds: float, buckets: Mapping[str, int]) -> Sketch:
        """The sketch that was stored."""
        return cls(seconds, Counter({int(bucket): count for bucket, count in buckets.items()}))

    def to_json(self) -> dict[str, int]:
        """The buckets, as JSON has them."""
        return {str(bucket): count for bucket, count in sorted(self.buckets.items()) if count}

    @property
    def count(self) -> int:
        """How many durations there are."""
        return self.buckets.total()

    @property
    def mean(self) -> float | None:
        """Seconds, None if there are no durations."""
        return self.seconds / self.count if self.count else None

    def observe(self, seconds: float) -> None:
        """Count one duration; one below zero, which two clocks can make, is zero."""
        seconds = max(seconds, 0.0)
        shortest = 2.0**SHORTEST
        bucket = math.ceil(PER_DOUBLING * math.log2(max(seconds, shortest)))
        self.seconds += seconds
        self.buckets[min(bucket, PER_DOUBLING * LONGEST)] += 1

    def add(self, other: Sketch, times: int = 1) -> None:
        """Count all that `other` has counted, `times` times."""
        self.seconds += times * other.seconds
        for bucket, count in other.buckets.items():
            self.buckets[bucket] += times * count

    def percentile(self, share: float) -> float | None:
        """The seconds that `share` (0 to 1) of the durations do not exceed; None if there are none."""
        rank = max(1, math.ceil(share * self.count))
        for bucket, count in sorted(self.buckets.items()):
            rank -= count
            if rank <= 0:
                return float(2 ** ((bucket - 0.5) / PER_DOUBLING))
        return None

    def at_most(self, powers: Iterable[int]) -> list[int]:
        """How many durations are at most 2^power seconds, for each of `powers`."""
        return [
            sum(count for bucket, count in self.buckets.items() if bucket <= PER_DOUBLING * power) for power in powers
        ]
