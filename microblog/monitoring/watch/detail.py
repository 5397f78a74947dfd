"""Detail view of a job: its steps, its timeline, and its error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from microblog.monitoring import output
from microblog.monitoring.job_queries import JobEvent
from microblog.monitoring.watch import widgets
from microblog.monitoring.watch.snapshot import JobLine, Snapshot
from microblog.taskqueue import states


def detail_lines(snapshot: Snapshot, line: JobLine | None) -> RenderableType:
    """Return all details of the open job: `line` is its latest state, ``snapshot.detail`` comes from the database."""
    if line is None and snapshot.detail is None:
        return widgets.clean(
            "Reading …" if not snapshot.database.unavailable else "Unknown without the database.", widgets.DIM
        )
    parts: list[RenderableType] = []
    if line is not None:
        parts += [_summary(line, snapshot.at), Text()]
    if snapshot.detail is None:
        message = "It has no row in the Task table." if line and not line.has_row else "Reading …"
        return Group(*parts, widgets.clean(message, widgets.DIM))
    for step in snapshot.detail["steps"]:
        latest = line if line is not None and line.step == step["position"] + 1 else None
        parts += _step(step, latest, len(snapshot.detail["steps"]))
    return Group(*parts, _timeline(snapshot.detail["timeline"]))


def _summary(line: JobLine, now: datetime) -> RenderableType:
    values = {
        "Task": f"{line.description} ({line.name})" if line.description else line.name,
        "User": line.user,
        "Worker": line.worker,
        "Age": widgets.since(line.created_at, line.finished_at or now),
        "Left": widgets.duration(line.remaining(now)),
    }
    table = _grid()
    cancelling = line.cancel_requested and line.unfinished
    table.add_row("State", "cancellation requested" if cancelling else widgets.state(line.state))
    for name, value in values.items():
        if value:
            table.add_row(name, Text(output.one_line(value)))
    return table


def _step(step: dict[str, Any], latest: JobLine | None, steps: int) -> Iterator[RenderableType]:
    state = latest.state if latest else step["state"]
    percent = latest.percent if latest else step["progress"]["percent"]
    message = latest.message if latest else step["progress"]["message"]
    heading = Text(f"Step {step['position'] + 1} of {steps}: {output.one_line(step['name'])}  ", style="bold")
    yield heading.append_text(widgets.state(state))
    if state != states.PENDING:
        yield widgets.bar(percent, state == states.SUCCESS)
    values = {
        "Message": message,
        "Error": step["error"],
        "Queue": step["queue"],
        "Worker": step["worker"],
        "Attempts": f"{step['attempts']}" + (f"; workers that died: {step['crashes']}" if step["crashes"] else ""),
        "Retry at": f"{step['eta']:%H:%M:%S} UTC" if state == states.RETRY and step["eta"] else "",
        "Id": step["id"],
    }
    table = _grid()
    for name, value in values.items():
        if value:
            table.add_row(name, Text(output.one_line(value), style="red" if name == "Error" else ""))
    yield table
    if step["traceback"]:
        yield Text("Traceback", style=widgets.DIM)
        yield from (Text(f"  {output.one_line(each)}") for each in step["traceback"].splitlines())
    yield Text()


def _timeline(events: Iterable[JobEvent]) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=widgets.DIM, no_wrap=True)
    for event in events:
        after = f"+{output.format_duration(event.after)}"
        table.add_row(f"{event.at:%H:%M:%S}", after, f"step {event.position + 1} {event.what}")
    return Group(Text("Timeline (UTC)", style="bold"), table)


def _grid() -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style=widgets.DIM, no_wrap=True, width=9)
    table.add_column()
    return table
