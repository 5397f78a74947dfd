"""Print a list of jobs, or all details of one."""

from __future__ import annotations

from datetime import datetime

import orjson

from microblog.cli import print_json
from microblog.clock import utcnow
from microblog.jobs import job_details
from microblog.jobs.models import Job
from microblog.monitoring import output
from microblog.monitoring.job_queries import describe_job, events_of, users_of
from microblog.monitoring.output import EMPTY
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import Decision


def print_list(listed: list[Job]) -> None:
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
            "State": job.state + (", asked to stop" if job.cancel_requested else ""),
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
                f"{event.step.position + 1} {event.step.name}",
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


def print_decisions(decisions: list[Decision], as_json: bool) -> None:
    """Print the repairs that `reconcile` would make, with the reason for each."""
    if as_json:
        described = [
            {"id": each.step.root_id, "step": each.step.id, "name": each.step.name, "state": each.step.state}
            | {"why": each.reason}
            for each in decisions
        ]
        print_json(described)
    elif decisions:
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


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _duration(started: datetime | None, finished: datetime | None) -> str:
    return output.format_duration((finished or utcnow()) - started) if started else EMPTY
