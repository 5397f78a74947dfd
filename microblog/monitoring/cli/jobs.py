"""``flask tasks status``, ``list``, ``show``, ``cancel``, ``retry`` and ``reconcile``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from microblog.cli import json_option, json_requested, print_output
from microblog.jobs.models import find_job, jobs_with_ids
from microblog.monitoring.actions import (
    cancel_with_reasons,
    cancellable,
    retry_with_reasons,
    retryable,
    terminate_jobs,
)
from microblog.monitoring.cli import completion, tables
from microblog.monitoring.cli.bulk import apply_and_print
from microblog.monitoring.cli.common import (
    EXIT_NOTHING_DONE,
    EXIT_USAGE_ERROR,
    filter_options,
    tasks,
    worker_timeout,
)
from microblog.monitoring.filters import UNSUCCESSFUL, Filters, Order
from microblog.monitoring.job_queries import (
    MAX_SEARCHED,
    JobPage,
    describe_job,
    describe_jobs,
    find_jobs,
)
from microblog.monitoring.status import check_status
from microblog.pagination import InvalidKey, PageRequest, parse_time_key
from microblog.taskqueue import states
from microblog.taskqueue.reconcile import decisions, reconcile_all


@tasks.command("status")
@worker_timeout
@json_option
@click.pass_context
def status(context: click.Context, timeout: float) -> None:
    """Show the system status on one screen: is any user waiting for a job that is stuck?

    \b
    Exit codes:
      0  healthy
      1  degraded: some jobs are delayed or fail, or soon will; each problem is on a line
      2  down: the database or Redis does not respond or refuses writes, or no worker responds

    If a part of the system is unavailable, the status of the other parts is still shown.

    \b
    Example, in a script:
      flask tasks status --json > status.json || mail -s 'microblog is degraded' root < status.json
    """
    found = check_status(timeout)
    print_output(found, tables.print_status, to_json=tables.status_as_json)
    context.exit(found.verdict)


def _cursor(_context: click.Context, _parameter: click.Parameter, key: str | None) -> str | None:
    try:
        if key is not None:
            parse_time_key(key)
    except InvalidKey:
        raise click.BadParameter(f"{key!r} is not a valid cursor; use one that a list has printed.") from None
    return key


@tasks.command("list")
@filter_options
@click.option(
    "--sort",
    "order",
    type=click.Choice(Order, case_sensitive=False),
    default=Order.NEWEST,
    show_default="newest",
    help="By creation, newest or oldest first; or by end, latest first, which omits unfinished jobs.",
)
@click.option("--limit", metavar="N", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Page size.")
@click.option("--after", metavar="CURSOR", callback=_cursor, help="Show the page after this cursor.")
@click.option("--before", metavar="CURSOR", callback=_cursor, help="Show the page before this cursor.")
@json_option
def list_jobs(filters: Filters, order: Order, limit: int, after: str | None, before: str | None) -> None:
    """List jobs, newest first, a page at a time.

    All filters must match. The cursors of the next and the previous page are printed to stderr; in JSON, each job has
    a `cursor` for --after and --before.

    \b
    Examples: susan's failed and running jobs; jobs that have waited for an hour, oldest first; recent mail failures
      flask tasks list --user susan --state FAILURE --state PROGRESS
      flask tasks list --state PENDING --older-than 1h --sort oldest
      flask tasks list --queue mail --error 'connection refused' --newer-than 1d
    """
    if after and before:
        raise click.UsageError("Give --after or --before, not both.")
    page = find_jobs(filters, PageRequest(before, after, limit), order)
    print_output(
        page.jobs, tables.print_jobs, to_json=lambda _jobs: _page_as_json(page), empty="There are no such jobs."
    )
    _print_cursors(page)


def _page_as_json(page: JobPage) -> list[dict[str, Any]]:
    return [fields | {"cursor": key} for fields, key in zip(describe_jobs(page.jobs), page.keys, strict=True)]


def _print_cursors(page: JobPage) -> None:
    if page.searched == MAX_SEARCHED and page.next:
        click.echo(f"Only {MAX_SEARCHED} failed jobs were searched; there are more.", err=True)
    if page.next:
        click.echo(f"Next page: --after {page.next}", err=True)
    if page.previous:
        click.echo(f"Previous page: --before {page.previous}", err=True)


@tasks.command("show")
@click.argument("task_id", metavar="ID", shell_complete=completion.job_ids())
@json_option
@click.pass_context
def show(context: click.Context, task_id: str) -> None:
    """Show all details of a job.

    ID is the id of the job or of any of its steps.

    \b
    Example:
      flask tasks show 0b8e2f4c-6a1d-4f7e-9c35-2d8a7e1b4f60
    """
    job = find_job(task_id)
    print_output(job, tables.print_job, to_json=describe_job)
    if job is None:
        click.echo(f"{task_id}: there is no such task.", err=True)
        context.exit(EXIT_USAGE_ERROR)


SHOWN = 10  # jobs in a preview

dry_run = click.option("--dry-run", is_flag=True, help="Only show which jobs would be affected.")
yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation; act on all jobs that match the filters.")


@tasks.command("cancel")
@click.argument("task_ids", metavar="[ID]...", nargs=-1, shell_complete=completion.job_ids(states.UNFINISHED))
@filter_options
@click.option("--terminate", is_flag=True, help="Kill the process of a running job that ignores cancellation.")
@worker_timeout
@dry_run
@yes
@json_option
@click.pass_context
def cancel(
    context: click.Context,
    task_ids: tuple[str, ...],
    filters: Filters,
    terminate: bool,
    timeout: float,
    dry_run: bool,
    yes: bool,
) -> None:
    """Cancel jobs: those with these ids, or all unfinished jobs that match the filters.

    Waiting jobs are cancelled at once, running jobs at their next progress step. With filters, the jobs are listed
    first, and the command asks for confirmation.

    \b
    Examples: one job; one that ignores cancellation; all that have waited in the queue exports for an hour
      flask tasks cancel 0b8e2f4c-6a1d-4f7e-9c35-2d8a7e1b4f60
      flask tasks cancel --terminate 0b8e2f4c-6a1d-4f7e-9c35-2d8a7e1b4f60
      flask tasks cancel --state PENDING --queue exports --older-than 1h
    """
    chosen = _choose(task_ids, filters, cancellable)
    if _confirm(context, "cancelled", chosen, filters.given, dry_run=dry_run, yes=yes):
        if terminate:  # which takes seconds for each job
            apply_and_print(context, partial(terminate_jobs, timeout=timeout), chosen, size=1)
        else:
            apply_and_print(context, cancel_with_reasons, chosen)


@tasks.command("retry")
@click.argument("task_ids", metavar="[ID]...", nargs=-1, shell_complete=completion.job_ids(UNSUCCESSFUL))
@filter_options
@dry_run
@yes
@json_option
@click.pass_context
def retry(context: click.Context, task_ids: tuple[str, ...], filters: Filters, dry_run: bool, yes: bool) -> None:
    """Retry failed or cancelled jobs: those with these ids, or all that match the filters.

    Each retry is a new job; the old one does not change, and filters no longer select it. With filters, the jobs are
    listed first, and the command asks for confirmation.

    \b
    Examples: one job; all exports that failed in the last day, from a script
      flask tasks retry 0b8e2f4c-6a1d-4f7e-9c35-2d8a7e1b4f60
      flask tasks retry --state FAILURE --name export_posts --newer-than 1d --yes
    """
    chosen = _choose(task_ids, filters, retryable)
    if _confirm(context, "retried", chosen, filters.given, dry_run=dry_run, yes=yes):
        apply_and_print(context, retry_with_reasons, chosen)


@tasks.command("reconcile")
@click.option("--dry-run", is_flag=True, help="Only show what would be done to which jobs, and why.")
@json_option
@click.pass_context
def repair_jobs(context: click.Context, dry_run: bool) -> None:
    """Repair jobs that have lost their worker or message now. Otherwise a worker does it every few seconds.

    Exits with 1 if there was nothing to do.

    \b
    Example: show which jobs are stuck, and why
      flask tasks reconcile --dry-run
    """
    if dry_run:
        repairs = list(decisions())
        print_output(repairs, tables.print_decisions, to_json=tables.decisions_as_json)
        done = len(repairs)
    else:
        done = reconcile_all()
        print_output({"done": done}, _print_repaired)
    if not done:
        click.echo("There is nothing to do.", err=True)
        context.exit(EXIT_NOTHING_DONE)


def _print_repaired(result: dict[str, int]) -> None:
    if done := result["done"]:
        click.echo(f"Repaired {_jobs(done)}.")


def _choose(task_ids: tuple[str, ...], filters: Filters, choose: Callable[[Filters], list[str]]) -> list[str]:
    """Return the ids of the selected jobs. Raises click.UsageError unless either ids or filters are given."""
    if bool(task_ids) == filters.given:
        raise click.UsageError("Select jobs either by their ids or by filters such as --state.")
    return choose(filters) if filters.given else list(dict.fromkeys(task_ids))


def _confirm(context: click.Context, done: str, chosen: list[str], filtered: bool, *, dry_run: bool, yes: bool) -> bool:
    """Show which jobs would be `done`, and ask for confirmation; return whether to proceed. Exits if there are none."""
    if dry_run:
        print_output(chosen, lambda ids: _preview(done, ids), to_json=lambda ids: {"count": len(ids), "ids": ids})
    elif chosen and filtered and not yes and not json_requested():
        _preview(done, chosen)
    if not chosen:
        click.echo("There are no such jobs.", err=True)
        context.exit(EXIT_NOTHING_DONE)
    if dry_run or not filtered or yes:
        return not dry_run
    click.confirm(f"{_jobs(len(chosen))} will be {done}. Continue? (--yes skips this question)", abort=True, err=True)
    return True


def _preview(done: str, chosen: list[str]) -> None:
    if shown := jobs_with_ids(chosen[:SHOWN]):
        tables.print_jobs(shown)
    if len(chosen) > SHOWN:
        click.echo(f"… and {len(chosen) - SHOWN} more")
    click.echo(f"{_jobs(len(chosen))} would be {done}.")


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"
