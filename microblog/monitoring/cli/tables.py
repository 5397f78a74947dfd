"""Print jobs, workers, queues, the schedule and the system status; convert the status to JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
import orjson

from microblog.clock import utcnow
from microblog.jobs import job_details
from microblog.jobs.models import Job
from microblog.monitoring import output
from microblog.monitoring.job_queries import describe_job, events_of, users_of
from microblog.monitoring.output import EMPTY
from microblog.monitoring.queues import QueueStats
from microblog.monitoring.rules import DATABASE, JOBS, REDIS, Verdict
from microblog.monitoring.schedule import ScheduleEntry
from microblog.monitoring.status import JobSummary, SystemStatus
from microblog.monitoring.workers import LIMITS, Fields, WorkerSummary
from microblog.taskqueue.consumer import DeadLetter
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import Decision

MEGABYTE = 1024 * 1024


def print_jobs(listed: list[Job]) -> None:
    """Print jobs, one per line."""
    names = users_of(listed)
    headings = ["ID", "USER", "NAME", "STATE", "STEP", "DONE", "TRIES", "CREATED", "TOOK"]
    rows = []
    for job in listed:
        step = job.current
        rows.append(
            [
                job.id,
                names.get(job.root.user_id, EMPTY),
                job.root.name,
                job.state,
                f"{step.position + 1}/{len(job.steps)}",
                f"{step.progress}%",
                str(max(step.attempts for step in job.steps)),
                output.format_time(job.root.created_at),
                _duration(job.root.started_at, job.finished_at),
            ]
        )
    output.print_table(headings, rows)


def print_job(job: Job) -> None:
    """Print all details of a job."""
    details = describe_job(job)
    output.print_fields(
        {
            "Job": job.id,
            "User": users_of([job]).get(job.root.user_id, EMPTY),
            "Task": f"{job.root.description} ({job.root.name})",
            "State": job.state + (", cancellation requested" if job.cancel_requested else ""),
            "Created": f"{output.format_time(job.root.created_at)} UTC",
            "Took": _duration(job.root.started_at, job.finished_at),
            "Retry of": job.root.retried_from or "",
            "Retried as": ", ".join(details["retried_as"]),
        }
    )
    output.print_heading("Timeline (UTC)")
    output.print_table(
        ["TIME", "AFTER", "STEP", "EVENT"],
        [
            [
                f"{event.at:%H:%M:%S.%f}"[:-3],
                output.format_duration(event.after),
                f"{event.position + 1} {event.name}",
                event.what,
            ]
            for event in events_of(job)
        ],
    )
    for step in job.steps:
        _print_step(step, len(job.steps))
    for kind in job_details.detail_names():
        for fields in details[kind]:
            output.print_heading(kind.removesuffix("s").capitalize())
            output.print_fields({_label(name): _format_value(value) for name, value in fields.items()}, indent="  ")


def decisions_as_json(decisions: Iterable[Decision]) -> list[dict[str, Any]]:
    """Return the repairs that `reconcile` would make as JSON, with the reason for each."""
    return [
        {"id": each.step.root_id, "step": each.step.id, "name": each.step.name, "state": each.step.state}
        | {"why": each.reason}
        for each in decisions
    ]


def print_decisions(decisions: Iterable[Decision]) -> None:
    """Print the repairs that `reconcile` would make, with the reason for each."""
    rows = [[each.step.root_id, each.step.name, each.step.state, each.reason] for each in decisions]
    output.print_table(["ID", "STEP", "STATE", "REASON"], rows)


def _print_step(step: Task, steps: int) -> None:
    output.print_heading(f"Step {step.position + 1} of {steps}: {step.name}")
    output.print_fields(
        {
            "Id": step.id,
            "State": step.state,
            "Progress": f"{step.progress} %{', ' if step.message else ''}{step.message}",
            "Queue": step.queue,
            "Worker": step.worker or "",
            "Lease until": f"{output.format_time(step.lease_expires_at)} UTC" if step.lease_expires_at else "",
            "Attempts": str(step.attempts) + (f"; workers that died: {step.crashes}" if step.crashes else ""),
            "Arguments": _json([step.signature.get("args"), step.signature.get("kwargs")]),
            "Result": _json(step.result) if step.result is not None else "",
            "Error": step.error or "",
        },
        indent="  ",
    )
    if step.traceback:
        output.print_fields({"Traceback": " "}, indent="  ")
        output.print_block(step.traceback, indent="    ")


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _format_value(value: object) -> str:
    return f"{output.format_time(value)} UTC" if isinstance(value, datetime) else str(value)


def _duration(started: datetime | None, finished: datetime | None) -> str:
    return output.format_duration((finished or utcnow()) - started) if started else EMPTY


def print_workers(summaries: Iterable[WorkerSummary]) -> None:
    """Print workers, one per line."""
    headings = ["NAME", "STATE", "POOL", "RUNNING", "PREFETCH", "PROCESSED", "MEMORY", "UPTIME", "LAST SEEN", "QUEUES"]
    output.print_table(
        headings,
        [
            [
                worker.name,
                "up" if worker.up else "down",
                f"{worker.pool} {worker.concurrency}" if worker.up else EMPTY,
                _number(worker.running),
                _number(worker.prefetch),
                _number(worker.processed),
                _memory(worker.memory) or EMPTY,
                output.format_seconds(worker.uptime),
                _seen_ago(worker.last_seen),
                ",".join(worker.queues or []) or EMPTY,
            ]
            for worker in summaries
        ],
    )


def print_worker(worker: WorkerSummary, reply: Fields, tasks: dict[str, list[Fields]]) -> None:
    """Print the details of a worker: its `reply` to all queries, and its active, reserved and scheduled `tasks`."""
    scale = worker.autoscale
    output.print_fields(
        {
            "Worker": worker.name,
            "Process": str(worker.pid),
            "Pool": str(worker.pool),
            "Concurrency": str(worker.concurrency) + (f", {scale['min']} to {scale['max']}" if scale else ""),
            "Prefetch": _number(worker.prefetch),
            "Processed": f"{worker.processed} messages",
            "Memory": f"{_memory(worker.memory)} maximum, main process only" if worker.memory else "",
            "Uptime": output.format_seconds(worker.uptime),
            "Queues": ", ".join(worker.queues or []) or "none",
        }
    )
    for heading, listed in tasks.items():
        output.print_heading(heading.capitalize())
        print_tasks(listed)
    output.print_heading("Revoked")
    output.print_block("\n".join(sorted(reply["revoked"])) or "none", indent="")
    output.print_heading("Registered")
    print_registered([task | {"workers": [worker.name]} for task in reply["registered"]])
    output.print_heading("Settings")
    output.print_fields({name: _json(value) for name, value in sorted(reply["conf"].items()) if value is not None})


def print_tasks(listed: Sequence[Fields]) -> None:
    """Print tasks that workers hold, one per line."""
    if not listed:
        output.print_block("none", indent="")
        return
    output.print_table(
        ["ID", "NAME", "WORKER", "PROCESS", "STARTED", "DUE", "ARGUMENTS"],
        [
            [
                task["id"],
                task["name"],
                task["worker"],
                _number(task["pid"]),
                output.format_time(task["started_at"]),
                output.format_time(datetime.fromisoformat(task["eta"])) if task["eta"] else EMPTY,
                _json([task["args"], task["kwargs"]]),
            ]
            for task in listed
        ],
    )


def print_registered(listed: Iterable[Fields]) -> None:
    """Print registered tasks, one per line, with time limits in seconds."""
    output.print_table(
        ["NAME", "RATE", "SOFT LIMIT", "HARD LIMIT", "WORKERS"],
        [[task["name"], *(_limit(task[limit]) for limit in LIMITS), ",".join(task["workers"])] for task in listed],
    )


def print_queues(measured: Iterable[QueueStats]) -> None:
    """Print queues, one per line."""
    output.print_table(
        ["QUEUE", "MESSAGES", "OLDEST WAITS", "CONSUMERS", "STATE"],
        [
            [
                queue.name,
                str(queue.length),
                _duration(queue.oldest, None),
                _number(queue.consumers),
                "paused" if queue.paused else "open",
            ]
            for queue in measured
        ],
    )


def print_dead_letters(letters: Iterable[DeadLetter]) -> None:
    """Print messages that were set aside, one per line."""
    output.print_table(
        ["SET ASIDE", "QUEUE", "REASON", "MESSAGE"],
        [[output.format_time(one.at), one.queue, one.reason, output.one_line(one.message)[:60]] for one in letters],
    )


def print_schedule(entries: Iterable[ScheduleEntry]) -> None:
    """Print the schedule, one entry per line."""
    output.print_table(
        ["NAME", "TASK", "EVERY", "SENT", "RUN", "NEXT"],
        [
            [
                entry.name,
                entry.task,
                output.format_seconds(entry.every),
                output.format_time(entry.last_sent_at),
                output.format_time(entry.last_run_at),
                output.format_time(entry.next_run_at),
            ]
            for entry in entries
        ],
    )


def _limit(value: float | str | None) -> str:
    return f"{value:g}" if isinstance(value, float) else value or EMPTY


def _number(value: int | None) -> str:
    return EMPTY if value is None else str(value)


def _memory(value: int | None) -> str:
    return "" if value is None else f"{value / MEGABYTE:.0f} MB"


def _seen_ago(time: datetime | None) -> str:
    return f"{output.format_duration(utcnow() - time)} ago" if time else EMPTY


def _json(value: object) -> str:
    return orjson.dumps(value, default=str).decode()


#: The parts of the JSON that are null if a service is unavailable.
PARTS = {
    REDIS: ("workers", "queues", "schedule", "beat", "dead_letters", "without_storage"),
    DATABASE: (),
    JOBS: ("jobs",),
}
COLOURS = {Verdict.HEALTHY: "green", Verdict.DEGRADED: "yellow", Verdict.DOWN: "red"}


def status_as_json(status: SystemStatus) -> dict[str, Any]:
    """Return the status as JSON; a part that is unavailable is null, and `away` gives the reason."""
    return {
        "status": status.verdict.name.lower(),
        "problems": [problem.text for problem in status.problems],
        "rules": sorted({problem.rule.name for problem in status.problems}),
        "at": status.at,
        "workers": None if status.workers is None else status.workers.summaries(),
        "queues": status.queues,
        "jobs": status.jobs,
        "schedule": status.schedule,
        "beat": status.beat,
        "dead_letters": status.dead_letters,
        "without_storage": status.without_storage,
        "clocks": status.clocks,
        "away": {part: reason for service, reason in status.unavailable.items() for part in PARTS[service]},
    }


def print_status(status: SystemStatus) -> None:
    """Print the system status."""
    click.secho(status.verdict.name.lower(), fg=COLOURS[status.verdict], bold=True)
    for problem in status.problems:
        click.echo(f"- {output.one_line(problem.text)}")
    if status.workers is not None and (summaries := status.workers.summaries()):
        output.print_heading("Workers")
        print_workers(summaries)
    if status.queues:
        output.print_heading("Queues")
        print_queues(status.queues)
    if status.jobs is not None:
        _print_job_summary(status, status.jobs)
    if status.schedule:
        output.print_heading("Schedule")
        print_schedule(status.schedule)


def _print_job_summary(status: SystemStatus, jobs: JobSummary) -> None:
    output.print_heading("Unfinished jobs, by age")
    rows = {state: list(ages.values()) for state, ages in jobs.unfinished.items() if any(ages.values())}
    ages = next(iter(jobs.unfinished.values()))
    headings = ["STATE", *(f"< {age}" for age in list(ages)[:-1]), "OLDER", "ALL"]
    output.print_table(headings, [[state, *map(str, counts), str(sum(counts))] for state, counts in rows.items()])
    click.echo()
    oldest = "no user is waiting"
    if waiting := jobs.oldest_waiting:
        age = output.format_duration(status.at - waiting.since)
        oldest = f"{waiting.user}, for {age}: {waiting.name}, {waiting.state}, {waiting.job_id}"
    failed = f"{jobs.failed} of {jobs.ended} that ended"
    output.print_fields({"Failed in the last hour": failed, "Oldest waiting user": oldest})
