"""What docs/operations.md says of Flower is all of Flower, can be typed, and is tested against real workers."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from flower.urls import handlers

from microblog.monitoring import cli
from tests.support.programs import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
# By what the table names: the test that does it with real workers, and the module it is in.
TESTS = {
    "flask tasks watch": "test_watch:"
    "test_it_shows_an_exports_bar_moving_cancels_it_by_key_and_outlives_a_restart_of_redis",
    "flask tasks tail": "test_tail:test_a_jobs_life_is_told_from_its_arrival_to_its_end",
    "flask tasks list": "test_cli_control:test_it_is_a_job_that_is_seen_and_belongs_to_nobody",
    "flask tasks show ID": "test_cli_control:test_it_is_a_job_that_is_seen_and_belongs_to_nobody",
    "flask tasks show ID --json": "test_cli_control:test_arguments_are_json_or_text",
    "flask tasks workers": "test_cli_workers:test_workers_tells_of_each_what_it_is",
    "flask tasks status": "test_cli_status:test_with_all_up_it_is_healthy",
    "flask tasks worker NAME": "test_cli_workers:test_one_worker_tells_all_that_it_knows_but_no_secret",
    "flask tasks worker NAME shutdown": "test_cli_control:test_it_ends_and_hands_back_what_it_cannot_finish_in_time",
    "flask tasks worker NAME restart-pool": "test_cli_control:test_its_processes_are_replaced_and_none_loses_its_task",
    "flask tasks worker NAME grow N": "test_cli_control:test_it_grows_and_shrinks",
    "flask tasks worker NAME shrink N": "test_cli_control:test_it_grows_and_shrinks",
    "flask tasks worker NAME autoscale MAX MIN": "test_cli_control:test_only_one_started_with_autoscale_scales_itself",
    "flask tasks worker NAME consume Q": "test_cli_control:test_it_takes_from_a_queue_or_no_longer",
    "flask tasks worker NAME stop-consuming Q": "test_cli_control:test_it_takes_from_a_queue_or_no_longer",
    "flask tasks active": "test_cli_workers:test_active_lists_what_runs_and_reserved_what_was_taken",
    "flask tasks reserved": "test_cli_workers:test_active_lists_what_runs_and_reserved_what_was_taken",
    "flask tasks scheduled": "test_cli_workers:test_scheduled_lists_what_waits_for_its_time",
    "flask tasks revoked": "test_cli_workers:test_revoked_lists_what_workers_were_told_to_drop",
    "flask tasks registered": "test_cli_workers:test_registered_lists_what_workers_can_run",
    "flask tasks time-limit TASK SOFT HARD": "test_cli_control:test_a_time_limit_ends_what_takes_longer",
    "flask tasks rate-limit TASK RATE": "test_cli_control:test_a_rate_limit_holds_tasks_back_until_it_is_lifted",
    "flask tasks cancel ID": "test_cli_control:test_a_job_that_runs_is_cancelled",
    "flask tasks cancel ID --terminate": "test_cli_steer:test_it_is_killed_and_ends_as_cancelled_and_is_not_run_again",
    "flask tasks run NAME": "test_cli_control:test_it_is_a_job_that_is_seen_and_belongs_to_nobody",
    "flask tasks run NAME --arg VALUE": "test_cli_control:test_arguments_are_json_or_text",
    "flask tasks queues": "test_cli_workers:test_queues_tells_what_waits_since_when_and_who_takes",
    "celery -A celery_app call NAME": "test_celery_cli:test_call_and_result_run_a_task",
    "GET /metrics": "test_metrics_count:test_what_is_counted_equals_the_table_whatever_was_killed",
    "GET /healthz": "test_health:test_a_process_is_alive_whatever_is_away",
    "GET /readyz": "test_health:test_it_is_ready_with_a_database_redis_and_a_worker_that_answers",
    "/admin/tasks": "test_admin:test_a_running_job_is_cancelled_by_a_click_on_its_page",
}


def rows_of_flower() -> list[tuple[str, str]]:
    """The rows of the first table: what Flower has, and what is here in its place."""
    table = PAGE.partition("| Flower | here |")[2].partition("\n\n")[0]
    cells = [line.strip("|").split(" | ") for line in table.splitlines()[2:]]
    return [(left.strip(), right.strip()) for left, right in cells]


def named(text: str) -> list[str]:
    """What a text says can be typed or asked for."""
    return [code for code in re.findall(r"`([^`]+)`", text) if code.startswith(("flask", "celery", "GET", "/"))]


def lines() -> list[str]:
    """Every call of ``flask tasks`` that the page names anywhere."""
    return sorted({code for code in named(PAGE) if code.startswith("flask tasks ")})


@pytest.mark.parametrize("line", lines())
def test_every_command_that_it_names_exists_and_takes_what_is_said(line: str) -> None:
    command: click.Command = cli.tasks
    words = shlex.split(line)[2:]
    while isinstance(command, click.Group) and words:
        words = parsed(command, words)
        if words:
            name, *words = words
            assert name in command.commands
            command = command.commands[name]

    assert command is not cli.tasks
    assert parsed(command, words) == []
    assert "Example" in (command.help or ""), "its help has no example"


def parsed(command: click.Command, words: list[str]) -> list[str]:
    """What is left of the words behind a command by its own options and arguments; click refuses a wrong option."""
    _, left, _ = command.make_parser(click.Context(command)).parse_args(words)
    return left


def test_every_route_of_flowers_api_is_there() -> None:
    routes = [handler.regex.pattern if hasattr(handler, "regex") else handler[0] for handler in handlers]
    wanted = {re.split(r"/\(\.[*+]\)", route)[0].rstrip("$") for route in routes}
    wanted = {route for route in wanted if route.startswith(("/api/", "/metrics", "/healthcheck"))}
    said = "\n".join(flowers for flowers, _ in rows_of_flower())

    assert len(wanted) > 20
    assert [route for route in sorted(wanted) if not re.search(rf"{re.escape(route)}(/…)?`", said)] == []


@pytest.mark.parametrize(("flowers", "ours"), rows_of_flower())
def test_every_row_is_tested_with_real_workers(flowers: str, ours: str) -> None:
    assert named(ours), "nothing is named that does it"
    for code in named(ours):
        module, test = TESTS[code].split(":")
        modules = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob(f"*/{module}.py")]

        assert any(f"def {test}(" in text for text in modules), code
