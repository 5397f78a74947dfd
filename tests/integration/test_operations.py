"""The Flower table of docs/operations.md is complete, its commands are valid, and each has an integration test."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from flower.urls import handlers

from microblog.monitoring import cli
from tests.support.programs import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
# The module and the test that run each command or request of the table, with real workers where it needs them.
TESTS = {
    "flask tasks watch": "test_watch:test_watch_shows_progress_cancels_and_survives_redis_restart",
    "flask tasks tail": "test_tail:test_tail_prints_task_lifecycle",
    "flask tasks list": "test_cli_control:test_launched_job_is_listed_without_user",
    "flask tasks show ID": "test_cli_control:test_launched_job_is_listed_without_user",
    "flask tasks show ID --json": "test_cli_control:test_arguments_are_json_or_text",
    "flask tasks workers": "test_cli_workers:test_workers_lists_details_of_each_worker",
    "flask tasks status": "test_cli_status:test_status_is_healthy_with_workers_and_beat",
    "flask tasks worker NAME": "test_cli_workers:test_worker_shows_details_without_secrets",
    "flask tasks worker NAME shutdown": "test_cli_control:test_shutdown_releases_unfinished_task",
    "flask tasks worker NAME restart-pool": "test_cli_control:test_restart_pool_loses_no_task",
    "flask tasks worker NAME grow N": "test_cli_control:test_pool_grows_and_shrinks_by_given_number",
    "flask tasks worker NAME shrink N": "test_cli_control:test_pool_grows_and_shrinks_by_given_number",
    "flask tasks worker NAME autoscale MAX MIN": "test_cli_control:test_autoscale_refused_without_autoscale_option",
    "flask tasks worker NAME consume Q": "test_cli_control:test_consume_and_stop_consuming",
    "flask tasks worker NAME stop-consuming Q": "test_cli_control:test_consume_and_stop_consuming",
    "flask tasks active": "test_cli_workers:test_active_and_reserved_tasks",
    "flask tasks reserved": "test_cli_workers:test_active_and_reserved_tasks",
    "flask tasks scheduled": "test_cli_workers:test_scheduled_lists_task_with_eta",
    "flask tasks revoked": "test_cli_workers:test_revoked_lists_revoked_task",
    "flask tasks registered": "test_cli_workers:test_registered_lists_tasks_with_limits",
    "flask tasks time-limit TASK SOFT HARD": "test_cli_control:test_time_limit_stops_slow_task",
    "flask tasks rate-limit TASK RATE": "test_cli_control:test_rate_limit_delays_tasks_until_removed",
    "flask tasks cancel ID": "test_cli_control:test_running_job_is_cancelled",
    "flask tasks cancel ID --terminate": "test_cli_actions:test_terminated_job_is_revoked_and_not_rerun",
    "flask tasks run NAME": "test_cli_control:test_launched_job_is_listed_without_user",
    "flask tasks run NAME --arg VALUE": "test_cli_control:test_arguments_are_json_or_text",
    "flask tasks queues": "test_cli_workers:test_queues_shows_length_age_and_consumers",
    "celery -A celery_app call NAME": "test_celery_cli:test_called_task_stores_its_result",
    "GET /metrics": "test_metrics_count:test_counters_equal_task_table_after_crashes",
    "GET /healthz": "test_health:test_healthz_is_ok_without_database_and_redis",
    "GET /readyz": "test_health:test_readyz_requires_database_redis_and_worker",
    "/admin/tasks": "test_admin:test_running_job_is_cancelled_on_its_page",
}


def flower_rows() -> list[tuple[str, str]]:
    """Return the rows of the first table: a feature of Flower, and its equivalent in this project."""
    table = PAGE.partition("| Flower | here |")[2].partition("\n\n")[0]
    cells = [line.strip("|").split(" | ") for line in table.splitlines()[2:]]
    return [(left.strip(), right.strip()) for left, right in cells]


def named_commands(text: str) -> list[str]:
    """Return the commands, requests and paths that a text names."""
    return [code for code in re.findall(r"`([^`]+)`", text) if code.startswith(("flask", "celery", "GET", "/"))]


def command_lines() -> list[str]:
    """Return every ``flask tasks`` command line on the page."""
    return sorted({code for code in named_commands(PAGE) if code.startswith("flask tasks ")})


@pytest.mark.parametrize("line", command_lines())
def test_documented_command_exists_with_its_options(line: str) -> None:
    command: click.Command = cli.tasks
    words = shlex.split(line)[2:]
    while isinstance(command, click.Group) and words:
        words = parse(command, words)
        if words:
            name, *words = words
            assert name in command.commands
            command = command.commands[name]

    assert command is not cli.tasks
    assert parse(command, words) == []
    assert "Example" in (command.help or ""), "the help has no example"


def parse(command: click.Command, words: list[str]) -> list[str]:
    """Parse the words that follow a command and return the remaining ones; click refuses an unknown option."""
    _, rest, _ = command.make_parser(click.Context(command)).parse_args(words)
    return rest


def test_every_flower_api_route_is_documented() -> None:
    routes = [handler.regex.pattern if hasattr(handler, "regex") else handler[0] for handler in handlers]
    expected = {re.split(r"/\(\.[*+]\)", route)[0].rstrip("$") for route in routes}
    expected = {route for route in expected if route.startswith(("/api/", "/metrics", "/healthcheck"))}
    documented = "\n".join(flower_cell for flower_cell, _ in flower_rows())

    assert len(expected) > 20
    assert [route for route in sorted(expected) if not re.search(rf"{re.escape(route)}(/…)?`", documented)] == []


@pytest.mark.parametrize(("flower_cell", "own_cell"), flower_rows())
def test_every_row_has_an_integration_test(flower_cell: str, own_cell: str) -> None:
    assert named_commands(own_cell), "the row names no command"
    for code in named_commands(own_cell):
        module, test = TESTS[code].split(":")
        modules = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob(f"*/{module}.py")]

        assert any(f"def {test}(" in text for text in modules), code
