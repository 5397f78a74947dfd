"""``flask tasks cancel`` and ``retry``: the jobs of all users, one or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from microblog.jobs.job import Job, find
from microblog.monitoring import jobs, steering
from microblog.monitoring.cli.group import NOTHING_DONE, WRONG, as_json, task_ids, tasks
from microblog.monitoring.display import print_json
from microblog.monitoring.steering import Outcome


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
