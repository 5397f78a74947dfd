"""/metrics, parsed as Prometheus parses it."""

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
    """The metric families of one scrape."""

    families: list[Metric]

    @property
    def names(self) -> set[str]:
        """The names of all time series, including those without a sample so far."""
        return {family.name + suffix for family in self.families for suffix in SUFFIXES.get(family.type, ("",))}

    def value(self, name: str, /, **labels: str) -> float | None:
        """Return the value of a time series, or None if it does not exist."""
        return self.values(name, labels).get(tuple(labels.values()))

    def values(self, name: str, labels: Iterable[str]) -> dict[tuple[str, ...], float]:
        """Return the values of all time series called `name`, by the values of these labels."""
        return {
            tuple(sample.labels[label] for label in labels): sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name
        }

    def counters(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return the samples of counters and histograms, which may only grow."""
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
