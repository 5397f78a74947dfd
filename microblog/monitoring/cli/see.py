"""``flask tasks list`` and ``show``: the jobs of all users."""

from __future__ import annotations

import click

from microblog.accounts.models import User
from microblog.jobs.job import find
from microblog.monitoring import jobs, report
from microblog.monitoring.cli.group import WRONG, as_json, tasks
from microblog.monitoring.display import print_json
from microblog.taskqueue import states


def _user(context: click.Context, parameter: click.Parameter, name: str | None) -> User | None:
    user = User.with_username(name) if name is not None else None
    if name is not None and user is None:
        raise click.BadParameter(f"there is nobody called {name!r}.")
    return user


@tasks.command("list")
@click.option("--user", metavar="NAME", callback=_user, help="Only jobs of this user.")
@click.option(
    "--state",
    "wanted_states",
    type=click.Choice(states.ALL, case_sensitive=False),
    multiple=True,
    help="Only jobs in this state; may be given several times.",
)
@click.option("--name", metavar="NAME", help="Only jobs with a task of this name, such as export_posts.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=50, show_default=True, help="How many.")
@as_json
def list_jobs(user: User | None, wanted_states: tuple[str, ...], name: str | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first.

    \b
    Example: what has failed or still runs of susan's
      flask tasks list --user susan --state FAILURE --state PROGRESS
    """
    listed = jobs.newest(limit, user=user, wanted_states=wanted_states, name=name)
    if as_json:
        print_json(jobs.describe(listed))
    elif listed:
        report.print_list(listed)
    else:
        click.echo("There are no such jobs.", err=True)


@tasks.command("show")
@click.argument("task_id", metavar="ID")
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
        print_json(jobs.describe([job])[0] if job else None)
    elif job:
        report.print_job(job)
    if job is None:
        click.echo(f"{task_id}: there is no such task.", err=True)
        context.exit(WRONG)
