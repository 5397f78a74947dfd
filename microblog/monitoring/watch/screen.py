"""Draw a snapshot and the state of the user interface, without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from microblog.monitoring import output
from microblog.monitoring.events import SILENCE_TIMEOUT
from microblog.monitoring.queues import QueueStats
from microblog.monitoring.rules import verdict_of
from microblog.monitoring.watch import widgets
from microblog.monitoring.watch.detail import detail_lines
from microblog.monitoring.watch.reader import LIMIT, UNFINISHED
from microblog.monitoring.watch.snapshot import JobLine, Service, Snapshot, WorkerLine
from microblog.monitoring.watch.ui_state import CANCEL, DETAIL, HELP, LIST, UiState
from microblog.taskqueue import states

SMALLEST = (60, 14)  # columns and lines; on a smaller terminal only a message is shown
WIDE, VERY_WIDE = 100, 136  # columns from which more columns of a job are shown
FRAME = 2  # lines of a panel's border
FOOTER_LINES = 2  # lines for the status and the keys

KEYS = {
    LIST: "q quit  ? help  ⏎ open  c cancel  r retry  / filter  s sort  Tab view",
    DETAIL: "q quit  Esc back  ↑↓ scroll  c cancel  r retry",
    HELP: "q quit  Esc back  ↑↓ scroll",
}


def draw(
    snapshot: Snapshot, arranged: Sequence[JobLine], ui: UiState, size: tuple[int, int], notice: str = ""
) -> RenderableType:
    """Return the whole screen of `size` (columns, lines). `arranged` are the jobs returned by UiState.arrange().

    `notice` is the result of the last action.
    """
    width, height = size
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return Text(f"This terminal has {width}×{height}; watch needs {SMALLEST[0]}×{SMALLEST[1]}.", style=widgets.BAD)
    layout = Layout()
    parts = [Layout(_header(snapshot, width), size=1)]
    if ui.mode == LIST:
        parts.append(Layout(_top(snapshot, height), size=top_height(snapshot, height)))
        parts.append(Layout(_jobs(snapshot, arranged, ui, width)))
    elif ui.mode == DETAIL:
        line = next((job for job in arranged if job.id == ui.cursor), None)
        parts.append(Layout(_framed(widgets.Scrolled(detail_lines(snapshot, line), ui), f"Job {ui.cursor}")))
    else:
        parts.append(Layout(_framed(widgets.Scrolled(widgets.help_lines(), ui), "Help")))
    parts.append(Layout(_status(snapshot, ui, notice), size=1))
    parts.append(Layout(_keys(KEYS[ui.mode]), size=1))
    layout.split_column(*parts)
    return layout


def top_height(snapshot: Snapshot, height: int) -> int:
    """Return the number of lines for workers and queues on a screen of `height` lines."""
    needed = max(3, len(snapshot.workers), len(snapshot.queues or ()))
    return FRAME + min(needed, max(3, height // 4))


def page_size(snapshot: Snapshot, height: int, mode: str) -> int:
    """Return the number of jobs, or of lines in another mode, that fit on the screen."""
    inside = height - 1 - FOOTER_LINES - FRAME
    return max(1, inside - top_height(snapshot, height) - 1) if mode == LIST else max(1, inside)


def _header(snapshot: Snapshot, width: int) -> RenderableType:
    left = Text.assemble((" microblog ", "bold reverse"), f" {snapshot.at:%H:%M:%S} UTC")
    unavailable = snapshot.redis.unavailable + snapshot.database.unavailable
    for part in (snapshot.redis, snapshot.database):
        left.append("   ")
        left.append_text(_part(part, snapshot.at, brief=unavailable > 1 and width < WIDE))
    throughput = Text()
    if not unavailable or width >= VERY_WIDE:
        throughput.append("last minute ", style=widgets.DIM)
        throughput.append(f"{snapshot.succeeded:,} done")
        if width >= WIDE:
            throughput.append(f" {output.draw_sparkline(snapshot.throughput)}", style="cyan")
        throughput.append(f" {snapshot.failed:,} failed ", style=widgets.BAD if snapshot.failed else widgets.DIM)
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(left, throughput)
    return line


def _part(part: Service, now: datetime, *, brief: bool) -> Text:
    if not part.known:
        return Text(f"{part.name} …", style=widgets.DIM)
    if part.unavailable:
        suffix = "" if brief else ", reconnecting"
        return Text(f"{part.name} is down ({widgets.since(part.since, now)}){suffix}", style="bold white on red")
    return Text.assemble((f"{part.name} ", ""), ("up", widgets.GOOD))


def _top(snapshot: Snapshot, height: int) -> RenderableType:
    rows = top_height(snapshot, height) - FRAME
    layout = Layout()
    layout.split_row(
        Layout(_framed(_workers(snapshot, rows), _title_of_workers(snapshot)), ratio=3),
        Layout(_framed(_queues(snapshot, rows), "Queues"), ratio=2),
    )
    return layout


def _title_of_workers(snapshot: Snapshot) -> Text:
    if snapshot.redis.unavailable:
        return Text("Workers: last known state")
    up = sum(worker.alive for worker in snapshot.workers)
    silent = len(snapshot.workers) - up
    title = Text(f"Workers: {up} up")
    if silent:
        title.append(f", {silent} silent", style=widgets.BAD)
    return title


def _workers(snapshot: Snapshot, rows: int) -> RenderableType:
    if not snapshot.workers:
        if snapshot.redis.unavailable:
            return widgets.clean("Unknown without Redis.", widgets.DIM)
        if snapshot.listening_for.total_seconds() < SILENCE_TIMEOUT:
            return widgets.clean("Listening …", widgets.DIM)
        return widgets.clean("No worker is up: nothing will run.", widgets.BAD)
    table = Table.grid(padding=(0, 1), expand=True)
    for justify in ("left", "left", "right", "right"):
        table.add_column(no_wrap=True, overflow="ellipsis", justify=justify, ratio=1 if not table.columns else None)
    shown = list(snapshot.workers[:rows])
    if len(snapshot.workers) > rows:
        shown = shown[:-1]
    for worker in shown:
        table.add_row(*_worker(worker, snapshot))
    if len(shown) < len(snapshot.workers):
        table.add_row(Text(f"and {len(snapshot.workers) - len(shown)} more", style=widgets.DIM))
    return table


def _worker(worker: WorkerLine, snapshot: Snapshot) -> list[RenderableType]:
    faded = widgets.DIM if snapshot.redis.unavailable else ""
    if not worker.alive and not snapshot.redis.unavailable:
        silence = f"silent for {widgets.since(worker.last_seen, snapshot.at)}" if worker.last_seen else "silent"
        return [widgets.clean(worker.name, widgets.BAD), Text(silence, style=widgets.BAD), "", ""]
    busy: RenderableType = Text(f"{worker.active} active", style=faded)
    if worker.concurrency:
        marks = "■" * min(worker.active, worker.concurrency) + "□" * max(0, worker.concurrency - worker.active)
        busy = Text(f"{worker.active}/{worker.concurrency} {marks if worker.concurrency <= 8 else ''}", style=faded)
    load = f"load {worker.load:.1f}" if worker.load is not None else ""
    return [widgets.clean(worker.name, faded), busy, Text(f"{worker.processed:,} done", style=widgets.DIM),
            Text(load, style=widgets.DIM)]  # fmt: skip


def _queues(snapshot: Snapshot, rows: int) -> RenderableType:
    if snapshot.queues is None:
        missing = snapshot.redis if snapshot.redis.unavailable else snapshot.database
        return widgets.clean(f"Unknown without {missing.name}." if missing.unavailable else "…", widgets.DIM)
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, justify="right")
    for queue in snapshot.queues[:rows]:
        table.add_row(*_queue(queue, snapshot.at))
    return table


def _queue(queue: QueueStats, now: datetime) -> list[RenderableType]:
    if queue.paused:
        note = Text("paused", style="bold yellow")
    elif queue.consumers == 0:
        note = Text("no worker", style=widgets.BAD)
    else:
        note = Text(widgets.since(queue.oldest, now), style=widgets.DIM)
    name = widgets.clean(queue.name, widgets.DIM if not queue.length else "")
    return [name, note, Text(f"{queue.length:,} waiting", style=widgets.STRONG if queue.length else widgets.DIM)]


def _jobs(snapshot: Snapshot, arranged: Sequence[JobLine], ui: UiState, width: int) -> RenderableType:
    body: RenderableType
    if snapshot.jobs is None:
        body = widgets.clean("Reading …", widgets.DIM)
    elif not arranged:
        body = widgets.clean("No job matches the filter." if ui.text else _EMPTY[ui.view], widgets.DIM)
    else:
        body = _table(snapshot, arranged, ui, width)
    return _framed(body, _title_of_jobs(snapshot, ui), _order(arranged, ui))


_EMPTY = {UNFINISHED: "No job is running or waiting.", "failed": "No job has failed.", "all": "There are no jobs yet."}


def _title_of_jobs(snapshot: Snapshot, ui: UiState) -> Text:
    if ui.view != UNFINISHED:
        title = Text("Jobs: failed, newest" if ui.view == "failed" else "Jobs: all, newest")
        return title.append(f" {LIMIT}", style=widgets.DIM)
    title = Text("Jobs")
    counts = snapshot.counts
    if counts is not None and not snapshot.database.unavailable:
        title.append(f": {counts.running:,} running, {counts.waiting:,} waiting")
        if waiting := counts.oldest_waiting:
            title.append(f" ({waiting.user} for {widgets.since(waiting.since, snapshot.at)})", style=widgets.DIM)
    elif snapshot.database.unavailable:
        title.append(" as last read, updated by events", style=widgets.BAD)
    return title


def _order(arranged: Sequence[JobLine], ui: UiState) -> Text:
    position = next((number for number, job in enumerate(arranged, 1) if job.id == ui.cursor), 0)
    order = Text(f"{position}/{len(arranged)} by {ui.sort} {'▲' if ui.backwards else '▼'}")
    if ui.text:
        order.append(f" filter: {ui.text}", style="bold yellow")
    return order


def _table(snapshot: Snapshot, arranged: Sequence[JobLine], ui: UiState, width: int) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim bold")
    table.add_column("", width=1)
    table.add_column("STATE", width=8, no_wrap=True)
    table.add_column("USER", width=10 if width < WIDE else 14, no_wrap=True, overflow="ellipsis")
    table.add_column("JOB", width=14 if width < WIDE else 20, no_wrap=True, overflow="ellipsis")
    table.add_column("STEP", width=4, no_wrap=True)
    table.add_column("PROGRESS", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("LEFT", width=6, justify="right", no_wrap=True)
    table.add_column("AGE", width=6, justify="right", no_wrap=True)
    if width >= WIDE:
        table.add_column("WORKER", width=16 if width < VERY_WIDE else 22, no_wrap=True, overflow="ellipsis")
    if width >= VERY_WIDE:
        table.add_column("ID", width=8, no_wrap=True)
    for job in arranged[ui.top : ui.top + ui.page]:
        chosen = job.id == ui.cursor
        cells = [Text("▸" if chosen else " "), *_cells(job, snapshot.at, width)]
        table.add_row(*cells, style=widgets.CURSOR if chosen else "")
    return table


def _cells(job: JobLine, now: datetime, width: int) -> list[RenderableType]:
    stopping = job.cancel_requested and job.unfinished
    cells: list[RenderableType] = [
        Text("STOPPING", style="yellow") if stopping else widgets.state(job.state),
        widgets.clean(job.user or output.EMPTY, "" if job.user else widgets.DIM),
        widgets.clean(job.step_name if width >= WIDE else job.name),
        Text(f"{job.step}/{job.steps}" if job.has_row else output.EMPTY, style=widgets.DIM),
        _progress(job, now),
        Text(widgets.duration(job.remaining(now)), style=widgets.DIM),
        Text(widgets.since(job.created_at, job.finished_at or now), style=widgets.DIM),
    ]
    if width >= WIDE:
        cells.append(widgets.clean(job.worker, widgets.DIM))
    if width >= VERY_WIDE:
        cells.append(widgets.clean(job.id[:8], widgets.DIM))
    return cells


def _progress(job: JobLine, now: datetime) -> RenderableType:
    """Return a bar for a running or successful job, or the reason that it does not run."""
    colour = output.STATE_COLOURS.get(job.state, widgets.DIM)
    if job.state == states.FAILURE:
        return widgets.clean(job.error or "failed", colour)
    if job.state == states.REVOKED:
        return widgets.clean("cancelled", colour)
    if job.state == states.RETRY:
        due = f"retry in {widgets.duration(job.eta - now)}" if job.eta and job.eta > now else "retry now"
        return widgets.clean(f"{due}: {job.error}" if job.error else due, colour)
    if job.state == states.PENDING:
        return widgets.clean(f"waiting in {job.queue}" if job.queue else "waiting", colour)
    return widgets.bar(job.percent, job.state == states.SUCCESS)


def _status(snapshot: Snapshot, ui: UiState, notice: str) -> RenderableType:
    """Return the line for a question, the filter, the result of the last action, or the status of the system."""
    if ui.question is not None and ui.question.job is not None:
        job = ui.question.job
        action = "Cancel" if ui.question.action == CANCEL else "Retry"
        owner = f" of {job.user}" if job.user else ""
        return widgets.clean(f" {action} {job.name}{owner} ({job.id[:8]})? y/n ", "bold black on yellow")
    if ui.typing:
        return Text.assemble((" filter: ", "bold yellow"), widgets.clean(ui.text), ("▏", "blink"))
    if notice or snapshot.problems is None:
        return widgets.clean(f" {notice}", widgets.STRONG)
    verdict = verdict_of(snapshot.problems).name.lower()
    if not snapshot.problems:
        return Text(f" {verdict}", style=widgets.GOOD)
    more = f" (and {len(snapshot.problems) - 1} more: flask tasks status)" if len(snapshot.problems) > 1 else ""
    return widgets.clean(f" {verdict}: {snapshot.problems[0].text}{more}", widgets.BAD)


def _keys(text: str) -> RenderableType:
    line = Text(" ", no_wrap=True, overflow="ellipsis")
    for each in text.split("  "):
        key, _, label = each.partition(" ")
        line.append(key, style=widgets.KEY)
        line.append(f" {label}  ", style=widgets.DIM)
    return line


def _framed(body: RenderableType, title: str | Text, subtitle: str | Text | None = None) -> Panel:
    heading = Text(title) if isinstance(title, str) else title
    heading.stylize_before("bold")
    return Panel(
        Group(body),
        box=ROUNDED,
        title=heading,
        subtitle=subtitle,
        title_align="left",
        subtitle_align="right",
        border_style=widgets.BORDER,
        padding=(0, 1),
    )
