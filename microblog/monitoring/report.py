"""Jobs as text: a list of them, and all that is known of one."""

from __future__ import annotations

from datetime import datetime

import orjson

from microblog.clock import utcnow
from microblog.commands import print_json
from microblog.jobs import traces
from microblog.jobs.job import Job
from microblog.monitoring import display
from microblog.monitoring.display import NOTHING
from microblog.monitoring.jobs import describe_all_of, users_of
from microblog.monitoring.timeline import events_of
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import Decision


def print_list(listed: list[Job]) -> None:
    """Print jobs, one a line."""
    names = users_of(listed)
    headings = ["ID", "USER", "NAME", "STATE", "STEP", "DONE", "TRIES", "CREATED", "TOOK"]
    rows = []
    for job in listed:
        step = job.current
        rows.append(
            [
                job.id,
                names.get(job.root.user_id, NOTHING),
                job.root.name,
                job.state,
                f"{step.position + 1}/{len(job.steps)}",
                f"{step.progress}%",
                str(max(step.attempts for step in job.steps)),
                display.moment(job.root.created_at),
                _took(job.root.started_at, job.finished_at),
            ]
        )
    display.print_table(headings, rows)


def print_job(job: Job) -> None:
    """Print all that is known of a job."""
    known = describe_all_of(job)
    display.print_facts(
        {
            "Job": job.id,
            "User": users_of([job]).get(job.root.user_id, NOTHING),
            "What": f"{job.root.description} ({job.root.name})",
            "State": job.state + (", asked to stop" if job.cancel_requested else ""),
            "Created": f"{display.moment(job.root.created_at)} UTC",
            "Took": _took(job.root.started_at, job.finished_at),
            "Retry of": job.root.retried_from or "",
            "Tried again": ", ".join(known["retried_as"]),
        }
    )
    display.print_heading("Time line (UTC)")
    display.print_table(
        ["TIME", "AFTER", "STEP", "EVENT"],
        [
            [
                f"{event.at:%H:%M:%S.%f}"[:-3],
                display.duration(event.after),
                f"{event.step.position + 1} {event.step.name}",
                event.what,
            ]
            for event in events_of(job)
        ],
    )
    for step in job.steps:
        _print_step(step, len(job.steps))
    for kind in traces.kinds():
        for facts in known[kind]:
            display.print_heading(kind.removesuffix("s").capitalize())
            display.print_facts({_words(name): _value(value) for name, value in facts.items()}, indent="  ")


def print_decisions(decisions: list[Decision], as_json: bool) -> None:
    """Print what reconcile would do to which job, and why."""
    if as_json:
        facts = [
            {"id": each.head.root_id, "step": each.head.id, "name": each.head.name, "state": each.head.state}
            | {"why": each.why}
            for each in decisions
        ]
        print_json(facts)
    elif decisions:
        rows = [[each.head.root_id, each.head.name, each.head.state, each.why] for each in decisions]
        display.print_table(["ID", "STEP", "STATE", "WHAT AND WHY"], rows)


def _print_step(step: Task, steps: int) -> None:
    display.print_heading(f"Step {step.position + 1} of {steps}: {step.name}")
    display.print_facts(
        {
            "Id": step.id,
            "State": step.state,
            "Progress": f"{step.progress} %{', ' if step.message else ''}{step.message}",
            "Queue": step.queue,
            "Worker": step.worker or "",
            "Lease until": f"{display.moment(step.lease_expires_at)} UTC" if step.lease_expires_at else "",
            "Attempts": str(step.attempts) + (f"; workers that died: {step.crashes}" if step.crashes else ""),
            "Arguments": _json([step.signature.get("args"), step.signature.get("kwargs")]),
            "Result": _json(step.result) if step.result is not None else "",
            "Error": step.error or "",
        },
        indent="  ",
    )
    if step.traceback:
        display.print_facts({"Traceback": " "}, indent="  ")
        display.print_block(step.traceback, indent="    ")


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _value(value: object) -> str:
    return f"{display.moment(value)} UTC" if isinstance(value, datetime) else str(value)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _took(started: datetime | None, finished: datetime | None) -> str:
    return display.duration((finished or utcnow()) - started) if started else NOTHING
