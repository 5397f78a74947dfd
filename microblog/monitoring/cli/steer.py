"""``flask tasks cancel``, ``retry`` and ``reconcile``: the jobs of all users, one or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from microblog.commands import as_json, print_json
from microblog.jobs.job import Job, find, with_roots
from microblog.monitoring import jobs, report, steering
from microblog.monitoring.cli import complete
from microblog.monitoring.cli.group import NOTHING_DONE, WRONG, tasks, worker_timeout
from microblog.monitoring.cli.options import filter_options
from microblog.monitoring.filters import SETBACKS, Filters
from microblog.monitoring.steering import Outcome
from microblog.taskqueue import reconcile as reconciling
from microblog.taskqueue import states

SHOWN = 10  # jobs in a preview

dry_run = click.option("--dry-run", is_flag=True, help="Only tell what would be done to which jobs.")
yes = click.option("--yes", is_flag=True, help="Do it without asking, to all that the filters let through.")


@tasks.command("cancel")
@click.argument("task_ids", metavar="[ID]...", nargs=-1, shell_complete=complete.job_ids(states.UNFINISHED))
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
    chosen = _choose(task_ids, filters, steering.cancellable)
    if _go_on(context, "cancelled", chosen, filters.given, dry_run=dry_run, yes=yes, as_json=as_json):
        act = (lambda job: steering.terminate(job, timeout)) if terminate else steering.cancel
        _steer(context, act, chosen, as_json)


@tasks.command("retry")
@click.argument("task_ids", metavar="[ID]...", nargs=-1, shell_complete=complete.job_ids(SETBACKS))
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
    chosen = _choose(task_ids, filters, steering.retryable)
    if _go_on(context, "tried again", chosen, filters.given, dry_run=dry_run, yes=yes, as_json=as_json):
        _steer(context, steering.retry, chosen, as_json)


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
        report.print_decisions(found, as_json)
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
    """Which jobs are meant. Raises click.UsageError unless they are named in one way of the two."""
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
    if shown := with_roots(chosen[:SHOWN]):
        report.print_list(shown)
    if len(chosen) > SHOWN:
        click.echo(f"… and {len(chosen) - SHOWN} more")
    if chosen:
        click.echo(f"{_jobs(len(chosen))} would be {done}.")


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"


def _steer(context: click.Context, act: Callable[[Job], Outcome], task_ids: Iterable[str], as_json: bool) -> None:
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


def _outcome(act: Callable[[Job], Outcome], task_id: str) -> Outcome:
    job = find(task_id)
    return act(job) if job else Outcome(False, "there is no such task.", None)


def _outcome_in_json(task_id: str, outcome: Outcome) -> dict[str, Any]:
    """The job as `list` has it (after a retry: the new one), with what was asked and what became of that."""
    facts = jobs.describe([outcome.job])[0] if outcome.job else {}
    return facts | {"asked": task_id, "done": outcome.done, "outcome": outcome.sentence}
