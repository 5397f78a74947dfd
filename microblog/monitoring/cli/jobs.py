"""``flask tasks status``, ``list``, ``show``, ``cancel``, ``retry`` and ``reconcile``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from flask import current_app

from microblog.cli import as_json, print_json
from microblog.jobs.models import Job, find_job, jobs_with_ids
from microblog.monitoring.actions import (
    ActionResult,
    cancel_with_reason,
    cancellable,
    retry_with_reason,
    retryable,
    terminate_job,
)
from microblog.monitoring.cli import completion, job_output, tables
from microblog.monitoring.cli.common import NOTHING_DONE, WRONG, tasks, worker_timeout
from microblog.monitoring.cli.params import filter_options
from microblog.monitoring.filters import SETBACKS, Filters, Order
from microblog.monitoring.job_queries import (
    LOOK_THROUGH,
    Cursor,
    InvalidCursor,
    JobPage,
    describe_job_fully,
    describe_jobs,
    find_jobs,
)
from microblog.monitoring.status import check_status
from microblog.taskqueue import reconcile as reconciling
from microblog.taskqueue import states


@tasks.command("status")
@worker_timeout
@as_json
@click.pass_context
def status(context: click.Context, timeout: float, as_json: bool) -> None:
    """Tell on one screen how it stands: is any user waiting for something that will not come?

    \b
    Exit codes:
      0  healthy
      1  degraded: a worker is silent, a queue holds messages that nobody takes or is paused with some in it,
         beat is overdue, a user has waited for 5 minutes for a job that nobody works on, or a tenth of the
         jobs that ended within the hour failed (5 at least)
      2  down: the database or Redis does not answer, or no worker does

    What can be told without the part that is away is told all the same.

    \b
    Example, in a script:
      flask tasks status --json > status.json || mail -s 'microblog is not well' root < status.json
    """
    found = check_status(current_app._get_current_object(), timeout)  # type: ignore[attr-defined]
    if as_json:
        print_json(tables.status_as_json(found))
    else:
        tables.print_status(found)
    context.exit(found.verdict)


class _Place(click.ParamType[Cursor]):
    """A cursor that a list has printed."""

    name = "cursor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Cursor:
        """The cursor."""
        try:
            return value if isinstance(value, Cursor) else Cursor.parse(value)
        except InvalidCursor as error:
            self.fail(str(error), param, ctx)


@tasks.command("list")
@filter_options
@click.option(
    "--sort",
    "order",
    type=click.Choice(Order, case_sensitive=False),
    default=Order.NEWEST,
    show_default="newest",
    help="By creation, newest or oldest first; or by end, latest first, which leaves out what has yet to end.",
)
@click.option("--limit", metavar="N", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many.")
@click.option("--after", metavar="CURSOR", type=_Place(), help="The page behind this place in the list.")
@click.option("--before", metavar="CURSOR", type=_Place(), help="The page in front of this place in the list.")
@as_json
def list_jobs(
    filters: Filters, order: Order, limit: int, after: Cursor | None, before: Cursor | None, as_json: bool
) -> None:
    """List jobs, newest first, a page at a time.

    All filters must hold. What follows a page that is not the last is told on stderr; in JSON each job has its
    place as its `cursor`, for --after and --before.

    \b
    Examples: what failed or still runs of susan's; who waits since an hour, the first first; what broke in the mail
      flask tasks list --user susan --state FAILURE --state PROGRESS
      flask tasks list --state PENDING --older-than 1h --sort oldest
      flask tasks list --queue mail --error 'connection refused' --newer-than 1d
    """
    if after and before:
        raise click.UsageError("Give --after or --before, not both.")
    page = find_jobs(filters, size=limit, order=order, after=after, before=before)
    if as_json:
        described = zip(describe_jobs(page.jobs), page.cursors, strict=True)
        print_json([facts | {"cursor": str(cursor)} for facts, cursor in described])
    elif page.jobs:
        job_output.print_list(page.jobs)
    else:
        click.echo("There are no such jobs.", err=True)
    _tell_neighbours(page)


def _tell_neighbours(page: JobPage) -> None:
    if page.looked_through == LOOK_THROUGH and page.next:
        click.echo(f"Only {LOOK_THROUGH} failed jobs were looked through; there are more.", err=True)
    if page.next:
        click.echo(f"Next page: --after {page.next}", err=True)
    if page.previous:
        click.echo(f"Previous page: --before {page.previous}", err=True)


@tasks.command("show")
@click.argument("task_id", metavar="ID", shell_complete=completion.job_ids())
@as_json
@click.pass_context
def show(context: click.Context, task_id: str, as_json: bool) -> None:
    """Show all that is known of a job.

    ID is the job's, or that of any of its steps.

    \b
    Example:
      flask tasks show 0b8e2f4c-6a1d-4f7e-9c35-2d8a7e1b4f60
    """
    job = find_job(task_id)
    if as_json:
        print_json(describe_job_fully(job) if job else None)
    elif job:
        job_output.print_job(job)
    if job is None:
        click.echo(f"{task_id}: there is no such task.", err=True)
        context.exit(WRONG)


SHOWN = 10  # jobs in a preview

dry_run = click.option("--dry-run", is_flag=True, help="Only tell what would be done to which jobs.")
yes = click.option("--yes", is_flag=True, help="Do it without asking, to all that the filters let through.")


@tasks.command("cancel")
@click.argument("task_ids", metavar="[ID]...", nargs=-1, shell_complete=completion.job_ids(states.UNFINISHED))
@filter_options
@click.option("--terminate", is_flag=True, help="Kill the process of one that runs, and does not listen.")
@worker_timeout
@dry_run
@yes
@as_json
@click.pass_context
def cancel(
    context: click.Context,
    task_ids: tuple[str, ...],
    filters: Filters,
    terminate: bool,
    timeout: float,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Cancel jobs: those with these ids, or all unfinished ones that the filters let through.

    Those that wait are cancelled at once, those that run at their next progress step. With filters it is shown first
    which jobs are meant, and asked.

    \b
    Examples: one; one that looks at nothing; all that have waited in the queue exports for an hour
      flask tasks cancel 0b8e2f4c-6a1d-4f7e-9c35-2d8a7e1b4f60
      flask tasks cancel --terminate 0b8e2f4c-6a1d-4f7e-9c35-2d8a7e1b4f60
      flask tasks cancel --state PENDING --queue exports --older-than 1h
    """
    chosen = _choose(task_ids, filters, cancellable)
    if _go_on(context, "cancelled", chosen, filters.given, dry_run=dry_run, yes=yes, as_json=as_json):
        act = (lambda job: terminate_job(job, timeout)) if terminate else cancel_with_reason
        _steer(context, act, chosen, as_json)


@tasks.command("retry")
@click.argument("task_ids", metavar="[ID]...", nargs=-1, shell_complete=completion.job_ids(SETBACKS))
@filter_options
@dry_run
@yes
@as_json
@click.pass_context
def retry(
    context: click.Context, task_ids: tuple[str, ...], filters: Filters, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Try jobs again that failed or were cancelled: those with these ids, or all that the filters let through.

    Each becomes a new job; the old one stays as it is, and is not meant by filters any more. With filters it is shown
    first which jobs are meant, and asked.

    \b
    Examples: one; all exports that failed today, from a script
      flask tasks retry 0b8e2f4c-6a1d-4f7e-9c35-2d8a7e1b4f60
      flask tasks retry --state FAILURE --name export_posts --newer-than 1d --yes
    """
    chosen = _choose(task_ids, filters, retryable)
    if _go_on(context, "tried again", chosen, filters.given, dry_run=dry_run, yes=yes, as_json=as_json):
        _steer(context, retry_with_reason, chosen, as_json)


@tasks.command("reconcile")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done to which jobs, and why.")
@as_json
@click.pass_context
def reconcile(context: click.Context, dry_run: bool, as_json: bool) -> None:
    """Do now what is done every few seconds anyway: bring jobs on whose worker or message is gone.

    Exits with 1 if there was nothing to do.

    \b
    Example: what is stuck, and why
      flask tasks reconcile --dry-run
    """
    if dry_run:
        found = list(reconciling.decisions())
        job_output.print_decisions(found, as_json)
        done: int | None = len(found)
    else:
        done = reconciling.reconcile()
        if as_json:
            print_json({"done": done})
        elif done:
            click.echo(f"Something was done for {_jobs(done)}.")
    if done is None:
        click.echo("Another process is at it right now.", err=True)
    elif not done:
        click.echo("Nothing is to be done.", err=True)
    if not done:
        context.exit(NOTHING_DONE)


def _choose(task_ids: tuple[str, ...], filters: Filters, choose: Callable[[Filters], list[str]]) -> list[str]:
    """Return the selected jobs. Raises click.UsageError unless exactly one way of selecting is used."""
    if bool(task_ids) == filters.given:
        raise click.UsageError("Say which jobs: by their ids, or by filters such as --state.")
    return choose(filters) if filters.given else list(dict.fromkeys(task_ids))


def _go_on(
    context: click.Context, done: str, chosen: list[str], filtered: bool, *, dry_run: bool, yes: bool, as_json: bool
) -> bool:
    """Show which jobs would be `done`, and ask; returns whether they are to be. Exits if there are none."""
    if dry_run and as_json:
        print_json({"count": len(chosen), "ids": chosen})
    elif (filtered and not as_json and not yes) or dry_run:
        _preview(done, chosen)
    if not chosen:
        click.echo("There are no such jobs.", err=True)
        context.exit(NOTHING_DONE)
    if dry_run or not filtered or yes:
        return not dry_run
    click.confirm(f"{_jobs(len(chosen))} to be {done}. Go on? (--yes answers this)", abort=True, err=True)
    return True


def _preview(done: str, chosen: list[str]) -> None:
    if shown := jobs_with_ids(chosen[:SHOWN]):
        job_output.print_list(shown)
    if len(chosen) > SHOWN:
        click.echo(f"… and {len(chosen) - SHOWN} more")
    if chosen:
        click.echo(f"{_jobs(len(chosen))} would be {done}.")


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"


def _steer(context: click.Context, act: Callable[[Job], ActionResult], task_ids: Iterable[str], as_json: bool) -> None:
    """Do something to each job, tell what became of it, and exit with the worst of their codes."""
    outcomes = {task_id: _outcome(act, task_id) for task_id in task_ids}
    if as_json:
        print_json([_outcome_in_json(task_id, outcome) for task_id, outcome in outcomes.items()])
    for task_id, outcome in outcomes.items():
        if not (as_json and outcome.done):
            click.echo(f"{task_id}: {outcome.sentence}", err=not outcome.done)
    if any(outcome.job is None for outcome in outcomes.values()):
        context.exit(WRONG)
    if not all(outcome.done for outcome in outcomes.values()):
        context.exit(NOTHING_DONE)


def _outcome(act: Callable[[Job], ActionResult], task_id: str) -> ActionResult:
    job = find_job(task_id)
    return act(job) if job else ActionResult(False, "there is no such task.", None)


def _outcome_in_json(task_id: str, outcome: ActionResult) -> dict[str, Any]:
    """The job as `list` has it (after a retry: the new one), with what was asked and what became of that."""
    facts = describe_jobs([outcome.job])[0] if outcome.job else {}
    return facts | {"asked": task_id, "done": outcome.done, "outcome": outcome.sentence}
