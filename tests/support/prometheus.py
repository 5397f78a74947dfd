"""/metrics as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flask import Flask
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

TOKEN = "a-token-for-prometheus"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}


@dataclass(frozen=True)
class Scrape:
    """What one scrape had to tell."""

    families: list[Metric]

    @property
    def names(self) -> set[str]:
        """The names of all time series that there are, or will be once there is something to tell."""
        return {family.name + suffix for family in self.families for suffix in SUFFIXES.get(family.type, ("",))}

    def value(self, name: str, /, **labels: str) -> float | None:
        """The value of one time series; None if there is no such."""
        return self.values(name, labels).get(tuple(labels.values()))

    def values(self, name: str, labels: Iterable[str]) -> dict[tuple[str, ...], float]:
        """The values of all time series called `name`, by these labels."""
        return {
            tuple(sample.labels[label] for label in labels): sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name
        }

    def counters(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """All that may only grow."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families
            if family.type in SUFFIXES
            for sample in family.samples
        }


def scrape(app: Flask) -> Scrape:
    """Scrape `app`, whose METRICS_TOKEN is TOKEN."""
    response = app.test_client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200, response.text
    return Scrape(list(text_string_to_metric_families(response.text)))
