"""``flask tasks status``, ``list`` and ``show``: how it stands, and the jobs of all users."""

from __future__ import annotations

from typing import Any

import click
from flask import current_app

from microblog.commands import as_json, print_json
from microblog.jobs.job import find
from microblog.monitoring import health, health_report, jobs, report
from microblog.monitoring.cli import complete
from microblog.monitoring.cli.group import WRONG, tasks, worker_timeout
from microblog.monitoring.cli.options import filter_options
from microblog.monitoring.filters import Filters, Order
from microblog.monitoring.jobs import LOOK_THROUGH, Cursor, InvalidCursor, Page


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
    found = health.look(current_app._get_current_object(), timeout)  # type: ignore[attr-defined]
    if as_json:
        print_json(health_report.describe(found))
    else:
        health_report.print_health(found)
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
    page = jobs.page(filters, size=limit, order=order, after=after, before=before)
    if as_json:
        described = zip(jobs.describe(page.jobs), page.cursors, strict=True)
        print_json([facts | {"cursor": str(cursor)} for facts, cursor in described])
    elif page.jobs:
        report.print_list(page.jobs)
    else:
        click.echo("There are no such jobs.", err=True)
    _tell_neighbours(page)


def _tell_neighbours(page: Page) -> None:
    if page.looked_through == LOOK_THROUGH and page.next:
        click.echo(f"Only {LOOK_THROUGH} failed jobs were looked through; there are more.", err=True)
    if page.next:
        click.echo(f"Next page: --after {page.next}", err=True)
    if page.previous:
        click.echo(f"Previous page: --before {page.previous}", err=True)


@tasks.command("show")
@click.argument("task_id", metavar="ID", shell_complete=complete.job_ids())
@as_json
@click.pass_context
def show(context: click.Context, task_id: str, as_json: bool) -> None:
    """Show all that is known of a job.

    ID is the job's, or that of any of its steps.

    \b
    Example:
      flask tasks show 0b8e2f4c-6a1d-4f7e-9c35-2d8a7e1b4f60
    """
    job = find(task_id)
    if as_json:
        print_json(jobs.describe_all_of(job) if job else None)
    elif job:
        report.print_job(job)
    if job is None:
        click.echo(f"{task_id}: there is no such task.", err=True)
        context.exit(WRONG)
