"""What one look found, as one screen of text, and in JSON."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from microblog.monitoring import display, workers
from microblog.monitoring.display import NOTHING, moment
from microblog.monitoring.health import Health, Verdict

COLOURS = {Verdict.HEALTHY: "green", Verdict.DEGRADED: "yellow", Verdict.DOWN: "red"}


def describe(health: Health) -> dict[str, Any]:
    """What was found, in JSON; a part that could not be asked is null, and `away` says why."""
    return {
        "status": health.verdict.name.lower(),
        "problems": health.problems,
        "at": health.at,
        "workers": _workers(health),
        "queues": None if health.queues is None else [asdict(queue) for queue in health.queues],
        "jobs": None if health.jobs is None else asdict(health.jobs),
        "schedule": None if health.schedule is None else [asdict(entry) for entry in health.schedule],
        "away": health.away,
    }


def print_health(health: Health) -> None:
    """Print what was found."""
    click.secho(health.verdict.name.lower(), fg=COLOURS[health.verdict], bold=True)
    for problem in health.problems:
        click.echo(f"- {display.one_line(problem)}")
    _print_workers(health)
    _print_queues(health)
    _print_jobs(health)
    _print_schedule(health)


def _workers(health: Health) -> list[dict[str, Any]] | None:
    if health.workers is None:
        return None
    names = sorted([*health.workers.up, *health.workers.silent])
    return [workers.describe(name, health.workers) for name in names]


def _print_workers(health: Health) -> None:
    if known := _workers(health):
        display.print_heading("Workers")
        display.print_table(
            ["WORKER", "UP", "RUNNING", "OF", "QUEUES", "LAST SEEN"],
            [
                [
                    worker["name"],
                    "yes" if worker["up"] else "SILENT",
                    _number(worker["running"]),
                    _number(worker["concurrency"]),
                    ", ".join(worker["queues"] or []) or NOTHING,
                    _ago(worker["last_seen"], health),
                ]
                for worker in known
            ],
        )


def _print_queues(health: Health) -> None:
    if health.queues:
        display.print_heading("Queues")
        display.print_table(
            ["QUEUE", "LENGTH", "OLDEST", "WORKERS", "PAUSED"],
            [
                [
                    queue.name,
                    str(queue.length),
                    _age(queue.oldest, health),
                    _number(queue.consumers),
                    "yes" if queue.paused else "no",
                ]
                for queue in health.queues
            ],
        )


def _print_jobs(health: Health) -> None:
    if health.jobs is None:
        return
    display.print_heading("Unfinished jobs, by age")
    rows = {state: list(ages.values()) for state, ages in health.jobs.unfinished.items() if any(ages.values())}
    ages = next(iter(health.jobs.unfinished.values()))
    headings = ["STATE", *(f"< {age}" for age in list(ages)[:-1]), "OLDER", "ALL"]
    display.print_table(headings, [[state, *map(str, counts), str(sum(counts))] for state, counts in rows.items()])
    click.echo()
    waiting = health.jobs.oldest_waiting
    display.print_facts(
        {
            "Failed within the hour": f"{health.jobs.failed} of {health.jobs.ended} that ended",
            "Oldest waiting user": f"{waiting.user}, for {_age(waiting.since, health)}: {waiting.name}, "
            f"{waiting.state}, {waiting.job_id}"
            if waiting
            else "nobody waits",
        }
    )


def _print_schedule(health: Health) -> None:
    if health.schedule:
        display.print_heading("Schedule")
        display.print_table(
            ["ENTRY", "EVERY", "LAST RUN", "NEXT RUN"],
            [
                [
                    entry.name,
                    NOTHING if entry.every is None else f"{entry.every:g} s",
                    _ago(entry.last_run_at, health),
                    NOTHING if entry.next_run_at is None else f"{moment(entry.next_run_at)} UTC",
                ]
                for entry in health.schedule
            ],
        )


def _number(value: int | None) -> str:
    return NOTHING if value is None else str(value)


def _age(since: datetime | None, health: Health) -> str:
    return NOTHING if since is None else display.duration(health.at - since)


def _ago(time: datetime | None, health: Health) -> str:
    return NOTHING if time is None else f"{_age(time, health)} ago"
