"""deploy/: Prometheus accepts the rules and the dashboard, which query only metrics that /metrics exports."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask

from microblog.monitoring import metrics
from tests.support import external
from tests.support.programs import ROOT
from tests.support.prometheus import TOKEN, scrape
from tests.support.servers import TIMEOUT

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "microblog.json").read_text())


def expressions_of_rules() -> list[str]:
    return [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]


def expressions_of_dashboard() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


@pytest.fixture
def promtool() -> str:
    """The path of promtool, of Debian's package `prometheus`."""
    return external.PROMTOOL.require()


def check(*command: str, cwd: Path = PROMETHEUS) -> None:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("expressions", [expressions_of_rules, expressions_of_dashboard])
def test_only_exported_metrics_are_queried(
    make_app: Callable[..., Flask], expressions: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "DEADLINE", TIMEOUT)
    monkeypatch.setattr(metrics, "PING_TIMEOUT", 0.05)  # there is no worker to wait for
    exported = scrape(make_app(METRICS_TOKEN=TOKEN)).names

    queried = {name for expression in expressions() for name in re.findall(r"\bmicroblog_\w+", expression)}

    assert len(queried) >= 8
    assert queried <= exported


def test_alerts_have_severity_and_description() -> None:
    for group in RULES["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "warn"), rule["alert"]
            assert rule["annotations"]["summary"], rule["alert"]
            assert rule["annotations"]["description"].endswith("."), rule["alert"]


def test_required_alerts_exist() -> None:
    alerts = {rule["alert"] for group in RULES["groups"] for rule in group["rules"]}

    needed = {"Problem", "MinorProblem", "QueueGrowing", "Down"}
    assert {f"Microblog{name}" for name in needed} <= alerts


def test_dashboard_panels_have_position_and_query() -> None:
    occupied: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & occupied, panel["title"]
        assert max(x for x, _y in cells) < 24, panel["title"]
        occupied |= cells
        assert panel["type"] == "row" or panel["targets"], panel["title"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_prometheus_accepts_configuration(promtool: str) -> None:
    check(promtool, "check", "config", "--syntax-only", "prometheus.yml")


def test_alert_rules_pass_their_tests(promtool: str) -> None:
    check(promtool, "check", "rules", "alerts.yml")
    check(promtool, "test", "rules", "alerts.test.yml")


def test_prometheus_accepts_dashboard_expressions(promtool: str, tmp_path: Path) -> None:
    rules: list[dict[str, Any]] = [
        {"record": f"panel:expression:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions_of_dashboard())
    ]
    (tmp_path / "dashboard.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    check(promtool, "check", "rules", "dashboard.yml", cwd=tmp_path)
