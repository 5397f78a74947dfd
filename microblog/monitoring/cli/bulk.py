"""Apply an action to many jobs: outcomes as they come, progress on stderr, and an end between two batches on Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event
from typing import Any

import click

from microblog.cli import json_requested, print_json
from microblog.clock import elapsed
from microblog.monitoring.actions import ActionResult, BatchAction, apply_in_batches
from microblog.monitoring.cli.common import BY_SIGNAL, EXIT_NOTHING_DONE, EXIT_USAGE_ERROR, print_outcomes
from microblog.monitoring.job_queries import describe_jobs

PROGRESS_INTERVAL = 1.0  # seconds between two lines about the progress
STOPPED = (
    "Stopped: {} of {} jobs were done, not counting a batch that ended with an error. "
    "The same command with filters continues."
)


def apply_and_print(context: click.Context, act: BatchAction, task_ids: Sequence[str], size: int | None = None) -> None:
    """Apply `act` to the jobs of these tasks, print the outcomes, and exit with the highest of their exit codes.

    `size` is as in apply_in_batches(). After Ctrl-C, the current batch is completed; a second one interrupts it. Then,
    and after an error, the number of jobs that were done is printed, if there are several.
    """
    exit_code, done, handled, printed_at = 0, 0, 0, elapsed()
    documents: list[dict[str, Any]] = []
    with _interrupt_requested() as interrupted:
        try:
            for outcomes in apply_in_batches(act, task_ids, size, interrupted.is_set):
                done += sum(outcome.done for outcome in outcomes.values())
                handled += len(outcomes)
                exit_code = max(exit_code, *map(_exit_code, outcomes.values()))
                print_outcomes({f"{task_id}:": outcome for task_id, outcome in outcomes.items()})
                if json_requested():
                    documents += _as_json(outcomes)
                if handled < len(task_ids) and elapsed() - printed_at >= PROGRESS_INTERVAL:
                    printed_at = elapsed()
                    click.echo(f"{handled} of {len(task_ids)} jobs.", err=True)
        finally:
            if json_requested() and documents:
                print_json(documents)
            if len(task_ids) > max(1, handled):
                click.echo(STOPPED.format(done, len(task_ids)), err=True)
    context.exit(exit_code if handled == len(task_ids) else BY_SIGNAL + signal.SIGINT)


@contextmanager
def _interrupt_requested() -> Iterator[Event]:
    """Yield an event that the first Ctrl-C sets; the next one is handled as before."""
    requested = Event()

    def on_interrupt(*_arguments: object) -> None:
        requested.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield requested
    finally:
        signal.signal(signal.SIGINT, previous)


def _exit_code(outcome: ActionResult) -> int:
    if outcome.job is None:
        return EXIT_USAGE_ERROR
    return 0 if outcome.done else EXIT_NOTHING_DONE


def _as_json(outcomes: Mapping[str, ActionResult]) -> Iterator[dict[str, Any]]:
    """Yield the jobs as `list` prints them (after a retry, the new jobs), with the requested ids and the results."""
    jobs = {outcome.job.id: outcome.job for outcome in outcomes.values() if outcome.job}
    described = dict(zip(jobs, describe_jobs(jobs.values()), strict=True))
    for task_id, outcome in outcomes.items():
        fields = described[outcome.job.id] if outcome.job else {}
        yield fields | {"asked": task_id, "done": outcome.done, "outcome": outcome.message}
