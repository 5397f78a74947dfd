"""``flask tasks``: see and steer the jobs of all users, from a terminal or a script.

Exit codes: 0 done; 1 nothing to do, or the job is not in a state for it; 2 called wrongly, or there is no
such job; 3 the database or Redis is away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import click
from celery.exceptions import BackendStoreError
from flask.cli import AppGroup
from kombu.exceptions import OperationalError as BrokerAway
from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError

from microblog.accounts.models import User
from microblog.jobs.job import Job, find
from microblog.monitoring import jobs, report, steering
from microblog.monitoring.display import print_json
from microblog.monitoring.steering import Outcome
from microblog.taskqueue import states

NOTHING_DONE, WRONG, AWAY = 1, 2, 3  # exit codes; 2 is also click's own for a wrong call


class Operators(AppGroup):
    """Commands that say in one sentence, on stderr, that the database or Redis is away."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except (OperationalError, InterfaceError) as error:
            _away(context, f"The database does not answer as it should: {error.orig}")
        except (RedisError, BrokerAway, BackendStoreError) as error:
            _away(context, f"Redis does not answer as it should: {error}")


def _away(context: click.Context, sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    context.exit(AWAY)


tasks = Operators("tasks", help="See and steer the jobs of all users.")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
task_ids = click.argument("task_ids", metavar="ID...", nargs=-1, required=True)


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


@tasks.command("cancel")
@task_ids
@as_json
@click.pass_context
def cancel(context: click.Context, task_ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel jobs.

    Those that wait are cancelled at once, those that run at their next progress step.

    \b
    Example: cancel all that wait
      flask tasks cancel $(flask tasks list --state PENDING --json | jq -r '.[].id')
    """
    _steer(context, steering.cancel, task_ids, as_json)


@tasks.command("retry")
@task_ids
@as_json
@click.pass_context
def retry(context: click.Context, task_ids: tuple[str, ...], as_json: bool) -> None:
    """Try jobs again that failed or were cancelled.

    Each becomes a new job; the old one stays as it is.

    \b
    Example: try all failed exports again
      flask tasks retry $(flask tasks list --state FAILURE --name export_posts --json | jq -r '.[].id')
    """
    _steer(context, steering.retry, task_ids, as_json)


def _steer(context: click.Context, act: Callable[[Job], Outcome], task_ids: Iterable[str], as_json: bool) -> None:
    """Do something to each job, tell what became of it, and exit with the worst of their codes."""
    outcomes = {task_id: _outcome(act, task_id) for task_id in dict.fromkeys(task_ids)}
    if as_json:
        print_json([_outcome_in_json(task_id, outcome) for task_id, outcome in outcomes.items()])
    for task_id, outcome in outcomes.items():
        if not (as_json and outcome.done):
            click.echo(f"{task_id}: {outcome.sentence}", err=not outcome.done)
    if any(outcome.job is None for outcome in outcomes.values()):
        context.exit(WRONG)
    if not all(outcome.done for outcome in outcomes.values()):
        context.exit(NOTHING_DONE)


def _outcome(act: Callable[[Job], Outcome], task_id: str) -> Outcome:
    job = find(task_id)
    return act(job) if job else Outcome(False, "there is no such task.", None)


def _outcome_in_json(task_id: str, outcome: Outcome) -> dict[str, Any]:
    """The job as `list` has it (after a retry: the new one), with what was asked and what became of that."""
    facts = jobs.describe([outcome.job])[0] if outcome.job else {}
    return facts | {"asked": task_id, "done": outcome.done, "outcome": outcome.sentence}
