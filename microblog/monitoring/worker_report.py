"""Workers, queues and the schedule as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import orjson

from microblog.clock import utcnow
from microblog.monitoring import display
from microblog.monitoring.display import NOTHING
from microblog.monitoring.queues import Measured
from microblog.monitoring.schedule import Entry
from microblog.monitoring.workers import LIMITS, Facts

MEGABYTE = 1024 * 1024


def print_workers(described: Iterable[Facts]) -> None:
    """Print workers, one a line."""
    headings = ["NAME", "STATE", "POOL", "RUNNING", "PREFETCH", "PROCESSED", "MEMORY", "UPTIME", "LAST SEEN", "QUEUES"]
    display.print_table(
        headings,
        [
            [
                worker["name"],
                "up" if worker["up"] else "down",
                f"{worker['pool']} {worker['concurrency']}" if worker["up"] else NOTHING,
                _number(worker["running"]),
                _number(worker["prefetch"]),
                _number(worker["processed"]),
                _memory(worker["memory"]) or NOTHING,
                _uptime(worker["uptime"]) or NOTHING,
                _ago(worker["last_seen"]),
                ",".join(worker["queues"] or []) or NOTHING,
            ]
            for worker in described
        ],
    )


def print_worker(worker: Facts, said: Facts, tasks: dict[str, list[Facts]]) -> None:
    """Print all that a worker says of itself; `tasks` are those that are active, reserved and scheduled."""
    scale = worker["autoscale"]
    display.print_facts(
        {
            "Worker": worker["name"],
            "Process": str(worker["pid"]),
            "Pool": str(worker["pool"]),
            "Concurrency": str(worker["concurrency"]) + (f", {scale['min']} to {scale['max']}" if scale else ""),
            "Prefetch": _number(worker["prefetch"]),
            "Processed": f"{worker['processed']} messages",
            "Memory": f"{_memory(worker['memory'])} at most, its main process" if worker["memory"] else "",
            "Uptime": _uptime(worker["uptime"]),
            "Queues": ", ".join(worker["queues"]) or "none",
        }
    )
    for heading, listed in tasks.items():
        display.print_heading(heading.capitalize())
        print_tasks(listed)
    display.print_heading("Revoked")
    display.print_block("\n".join(sorted(said["revoked"])) or "none", indent="")
    display.print_heading("Registered")
    print_registered([task | {"workers": [worker["name"]]} for task in said["registered"]])
    display.print_heading("Settings")
    display.print_facts({name: _json(value) for name, value in sorted(said["conf"].items()) if value is not None})


def print_tasks(listed: Sequence[Facts]) -> None:
    """Print tasks that workers hold, one a line."""
    if not listed:
        display.print_block("none", indent="")
        return
    display.print_table(
        ["ID", "NAME", "WORKER", "PROCESS", "STARTED", "DUE", "ARGUMENTS"],
        [
            [
                task["id"],
                task["name"],
                task["worker"],
                _number(task["pid"]),
                display.moment(task["started_at"]),
                display.moment(datetime.fromisoformat(task["eta"])) if task["eta"] else NOTHING,
                _json([task["args"], task["kwargs"]]),
            ]
            for task in listed
        ],
    )


def print_registered(kinds: Iterable[Facts]) -> None:
    """Print tasks that workers can run, one a line, with the limits in seconds."""
    display.print_table(
        ["NAME", "RATE", "SOFT LIMIT", "HARD LIMIT", "WORKERS"],
        [[task["name"], *(_limit(task[limit]) for limit in LIMITS), ",".join(task["workers"])] for task in kinds],
    )


def print_queues(measured: Iterable[Measured]) -> None:
    """Print queues, one a line."""
    display.print_table(
        ["QUEUE", "MESSAGES", "OLDEST WAITS", "CONSUMERS", "STATE"],
        [
            [
                queue.name,
                str(queue.length),
                display.duration(utcnow() - queue.oldest) if queue.oldest else NOTHING,
                _number(queue.consumers),
                "paused" if queue.paused else "open",
            ]
            for queue in measured
        ],
    )


def print_schedule(entries: Iterable[Entry]) -> None:
    """Print the schedule, one entry a line."""
    display.print_table(
        ["NAME", "TASK", "EVERY", "LAST RUN", "NEXT RUN"],
        [
            [
                entry.name,
                entry.task,
                display.duration(timedelta(seconds=entry.every)) if entry.every is not None else NOTHING,
                display.moment(entry.last_run_at),
                display.moment(entry.next_run_at),
            ]
            for entry in entries
        ],
    )


def _limit(value: float | str | None) -> str:
    return f"{value:g}" if isinstance(value, float) else value or NOTHING


def _number(value: int | None) -> str:
    return NOTHING if value is None else str(value)


def _memory(value: int | None) -> str:
    return "" if value is None else f"{value / MEGABYTE:.0f} MB"


def _uptime(seconds: float | None) -> str:
    return "" if seconds is None else display.duration(timedelta(seconds=seconds))


def _ago(time: datetime | None) -> str:
    return f"{display.duration(utcnow() - time)} ago" if time else NOTHING


def _json(value: object) -> str:
    return orjson.dumps(value, default=str).decode()
