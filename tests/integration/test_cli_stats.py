"""``flask tasks stats`` and ``flask tasks failures``: tables for operators, JSON for scripts, and errors."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta

import pytest
from flask import Flask

from microblog.clock import utcnow
from microblog.monitoring import output
from microblog.monitoring.rollup import hour_of
from tests.support import programs
from tests.support.console import Run, commands, flask_tasks, run_in_terminal
from tests.support.factories import make_timed_job

UNREACHABLE_REDIS = "redis://127.0.0.1:1/0"
ESCAPE = "\x1b[31mred\x1b[0m"


@pytest.fixture
def run(app: Flask) -> Run:
    return commands(app, "tasks")


class TestStats:
    @pytest.mark.both_databases
    def test_stats_by_task_and_by_hour(self, run: Run) -> None:
        now = utcnow()
        for hours_ago in (0, 2):
            make_timed_job(("add", "SUCCESS"), at=now - timedelta(hours=hours_ago), run=4.0)
        make_timed_job(("add", "FAILURE"), at=now)

        result = run("stats")

        assert (result.exit_code, result.stderr) == (0, "")
        by_task, by_hour = (part.splitlines() for part in result.stdout.split("\n\n"))
        assert by_task[1].split()[:2] == ["add", "3"]
        assert "33.3 %" in by_task[1]
        assert "▄·█" in by_task[1], "the sparkline shows the values by hour"
        assert [line.split()[:6] for line in by_hour[1:]] == [
            [f"{now - timedelta(hours=2):%Y-%m-%d}", f"{now - timedelta(hours=2):%H}:00", "add", "1", "0", "0"],
            [f"{now:%Y-%m-%d}", f"{now:%H}:00", "add", "1", "1", "0"],
        ]
        assert by_hour[0].index("RUN P50") == by_hour[1].index("3.8"), "columns align"

    @pytest.mark.both_databases
    def test_stats_json_output(self, run: Run) -> None:
        now = utcnow()
        make_timed_job(("add", "SUCCESS"), at=now, wait=1.0, run=4.0)

        stats = json.loads(run("stats", "--json").stdout)

        [task], [hour] = stats["tasks"], stats["hours"]
        assert hour["hour"] == f"{hour_of(now):%Y-%m-%dT%H:%M:%S}Z"
        for line in (task, hour):
            assert (line["name"], line["finished"], line["failure_rate"]) == ("add", 1, 0.0)
            assert line["counts"] == {"SUCCESS": 1, "FAILURE": 0, "REVOKED": 0}
            assert set(line["run"]) == {"count", "mean", "p50", "p95", "p99"}
            assert line["run"]["mean"] == pytest.approx(4.0)

    @pytest.mark.both_databases
    def test_stats_filters_by_time_and_name(self, run: Run) -> None:
        old = utcnow() - timedelta(days=3)
        make_timed_job(("add", "SUCCESS"), at=old)
        make_timed_job(("noop", "SUCCESS"))

        def names(*options: str) -> list[str]:
            return [task["name"] for task in json.loads(run("stats", "--json", *options).stdout)["tasks"]]

        assert names() == ["noop"]
        assert names("--since", "4d") == names("--since", f"{old:%Y-%m-%d}") == ["add", "noop"]
        assert names("--since", "4d", "--name", "add") == ["add"]

    def test_empty_stats_succeed(self, run: Run) -> None:
        result = run("stats")

        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "No such task has ended since then.\n"
        assert json.loads(run("stats", "--json").stdout)["hours"] == []


class TestFailuresCommand:
    @pytest.mark.both_databases
    def test_failures_are_grouped_with_example_job(self, run: Run) -> None:
        for number in (1, 2):
            job = make_timed_job(("add", "FAILURE"), error=f"The server said 55{number}.")
        make_timed_job(("noop", "FAILURE"), traceback="Traceback:\nValueError: no")

        result = run("failures")

        heading, first, second = result.stdout.splitlines()
        assert (result.exit_code, result.stderr) == (0, "")
        assert heading.split()[:3] == ["COUNT", "TASK", "CAUSE"]
        assert first.split()[:6] == ["2", "add", "The", "server", "said", "N."]
        assert first.endswith(job)
        assert "ValueError: no" in second

    def test_failures_json_output(self, run: Run) -> None:
        job = make_timed_job(("noop", "FAILURE"), traceback="Traceback:\nValueError: no")

        [cause] = json.loads(run("failures", "--json").stdout)

        assert (cause["name"], cause["kind"], cause["text"], cause["count"]) == ("noop", "ValueError", "no", 1)
        assert cause["example"] == job
        assert cause["first"] == cause["last"]
        assert cause["last"].endswith("Z")

    def test_empty_failures_succeed(self, run: Run) -> None:
        make_timed_job(("noop", "FAILURE"), at=utcnow() - timedelta(hours=2))

        result = run("failures", "--since", "1h")

        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "No such task has failed since then.\n"
        assert json.loads(run("failures", "--since", "1h", "--json").stdout) == []


@pytest.mark.parametrize("database", ["sqlite"])
class TestBoth:
    @pytest.mark.parametrize("command", ["stats", "failures"])
    def test_invalid_since_is_refused(self, run: Run, command: str) -> None:
        for since in ("yesterday", "", "-1h", "7 moons", "9999999999d", "999999w", "2026-13-01"):
            result = run(command, "--since", since)

            assert (result.exit_code, result.stdout) == (2, ""), since
            assert "neither an age such as" in result.stderr, since

    @pytest.mark.parametrize("command", ["stats", "failures"])
    def test_command_needs_database_but_not_redis(
        self, app: Flask, environment: dict[str, str], tmp_path: object, command: str
    ) -> None:
        make_timed_job(("noop", "FAILURE"), error="No.")

        def run(**settings: str) -> subprocess.CompletedProcess[str]:
            return programs.run(flask_tasks(command, "--json"), environment | settings)

        without_redis = run(REDIS_URL=UNREACHABLE_REDIS)
        without_database = run(DATABASE_URL=f"sqlite:///{tmp_path}/no/such/folder/x.db")

        assert without_redis.returncode == 0
        assert "noop" in without_redis.stdout
        assert (without_database.returncode, without_database.stdout) == (3, "")
        assert "The database is unavailable" in without_database.stderr

    @pytest.mark.parametrize("command", ["stats", "failures"])
    def test_help_has_example(self, run: Run, command: str) -> None:
        result = run(command, "--help")

        assert f"flask tasks {command} " in result.stdout.partition("Example")[2]

    def test_terminal_output_is_escaped(self, app: Flask, environment: dict[str, str]) -> None:
        make_timed_job(("add", "FAILURE"), error=ESCAPE)

        text = run_in_terminal(flask_tasks("failures"), environment) + run_in_terminal(
            flask_tasks("stats"), environment
        )

        assert "─" in text
        assert "█" in text
        assert ESCAPE not in text


def test_sparkline_fits_width_and_shows_maximum() -> None:
    assert output.draw_sparkline([0, 1, 2, 4, 8, None]) == "·▁▂▄█·"
    assert output.draw_sparkline([]) == ""
    assert output.draw_sparkline([0, None]) == "··"
    assert len(output.draw_sparkline(range(1000), width=24)) <= 24
    assert output.draw_sparkline([0] * 30 + [5] + [0] * 17, width=24).count("█") == 1


def test_share_and_seconds_are_formatted() -> None:
    assert (output.format_share(0.125), output.format_share(None)) == ("12.5 %", "-")
    assert (output.format_seconds(0.25), output.format_seconds(90), output.format_seconds(None)) == (
        "0.25s",
        "1m30s",
        "-",
    )
