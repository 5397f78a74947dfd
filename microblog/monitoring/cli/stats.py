"""``flask tasks stats`` and ``failures``: outcomes of tasks, and groups of failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import click

from microblog.cli import json_option, print_output
from microblog.clock import utcnow
from microblog.monitoring import output, statistics
from microblog.monitoring.cli.common import Since, tasks
from microblog.monitoring.rollup import HOUR, hour_of
from microblog.monitoring.statistics import FailureGroup, Hour, Outcomes
from microblog.taskqueue import states

_TIME_HEADINGS = ["WAIT P50", "P95", "P99", "RUN P50", "P95", "P99"]

_since = click.option(
    "--since", type=Since(), default="24h", show_default=True, help="An age such as 90m or 7d, or a time (UTC)."
)
_name = click.option("--name", metavar="NAME", help="Only tasks of this name, such as export_posts.")


@tasks.command("stats")
@_since
@_name
@json_option
def stats(since: datetime, name: str | None) -> None:
    """Show how many tasks ended, how long they waited and ran, and how many failed.

    Prints one line per task, with its trend by hour, then one line per task and hour. Hours are whole hours in UTC.
    WAIT is the time until a task first started, RUN the time from that start to its end.

    \b
    Example: the mails of the last week
      flask tasks stats --since 7d --name email_export
    """
    until = utcnow()
    totals = statistics.by_task(since, until, name)
    hours = statistics.by_hour(since, until, name)

    def show(hours: list[Hour]) -> None:
        _print_tasks(totals, hours, since, until)
        click.echo()
        _print_hours(hours)

    print_output(
        hours,
        show,
        to_json=lambda hours: {
            "since": hour_of(since),
            "until": until,
            "tasks": [outcomes.to_dict() for outcomes in totals],
            "hours": [hour.to_dict() for hour in hours],
        },
        empty="No such task has ended since then.",
    )


@tasks.command("failures")
@_since
@_name
@json_option
def failures(since: datetime, name: str | None) -> None:
    """Show why tasks failed, grouped by cause.

    Errors that differ only in numbers, ids or quoted text are one cause. A step that failed only because the previous
    step failed is omitted. JOB is the latest job with this cause, for `flask tasks show`.

    \b
    Example: the failures of the last hour
      flask tasks failures --since 1h
    """
    print_output(statistics.group_failures(since, name), _print_failures, empty="No such task has failed since then.")


def _print_tasks(totals: Sequence[Outcomes], hours: Sequence[Hour], since: datetime, until: datetime) -> None:
    headings = ["TASK", "ENDED", "BY HOUR", "FAILED", "BY HOUR", *_TIME_HEADINGS, "WAIT P95 BY HOUR"]
    rows = []
    for task in totals:
        task_hours = {hour.hour: hour for hour in hours if hour.name == task.name}

        def trend(value: Callable[[Hour], float | None], task_hours: dict[datetime, Hour] = task_hours) -> str:
            axis = range((hour_of(until) - hour_of(since)) // HOUR + 1)
            buckets = [task_hours.get(hour_of(since) + hour * HOUR) for hour in axis]
            return output.draw_sparkline([value(hour) if hour else None for hour in buckets])

        rows.append(
            [
                task.name,
                str(task.finished),
                trend(lambda hour: hour.finished),
                output.format_share(task.failure_rate),
                trend(lambda hour: hour.failure_rate),
                *_times(task),
                trend(lambda hour: hour.wait.p95),
            ]
        )
    output.print_table(headings, rows)


def _print_hours(hours: Sequence[Hour]) -> None:
    output.print_table(
        ["HOUR (UTC)", "TASK", *states.FINISHED, "FAILED", *_TIME_HEADINGS, "CRASHES"],
        [
            [
                f"{hour.hour:%Y-%m-%d %H}:00",
                hour.name,
                *(str(hour.counts[state]) for state in states.FINISHED),
                output.format_share(hour.failure_rate),
                *_times(hour),
                str(hour.crashes),
            ]
            for hour in hours
        ],
    )


def _times(outcomes: Outcomes) -> list[str]:
    return [
        output.format_seconds(value)
        for times in (outcomes.wait, outcomes.run)
        for value in (times.p50, times.p95, times.p99)
    ]


def _print_failures(groups: Sequence[FailureGroup]) -> None:
    output.print_table(
        ["COUNT", "TASK", "CAUSE", "FIRST (UTC)", "LAST (UTC)", "JOB"],
        [
            [
                str(group.count),
                group.name,
                ": ".join(filter(None, (group.kind, group.text))) or output.EMPTY,
                output.format_time(group.first),
                output.format_time(group.last),
                group.example,
            ]
            for group in groups
        ],
    )
