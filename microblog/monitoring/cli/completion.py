"""Shell completion of names and ids, from current data.

Completion never blocks: if the database or Redis does not respond within a second, nothing is offered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import click
import sqlalchemy as sa
from click.shell_completion import CompletionItem
from flask.cli import ScriptInfo

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.monitoring.actions import known_tasks, runnable_tasks
from microblog.monitoring.filters import Filters, is_current_step, job_state
from microblog.monitoring.job_queries import find_jobs
from microblog.monitoring.probes import ConcurrentProbes
from microblog.monitoring.queues import known_queues
from microblog.monitoring.workers import registered_workers
from microblog.pagination import PageRequest
from microblog.taskqueue import states
from microblog.taskqueue.models import Task

MAX_COMPLETIONS = 50  # maximum number of completions
DEADLINE = 1.0  # seconds

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
Offer = Callable[[str], Iterable[CompletionItem]]


def job_ids(in_states: Collection[str] = states.ALL) -> Completer:
    """Return a completer for ids of jobs in one of these states; newest first if nothing has been typed."""

    def offer(typed: str) -> Iterable[CompletionItem]:
        if not typed:
            newest = find_jobs(Filters(states=frozenset(in_states)), PageRequest(size=MAX_COMPLETIONS)).jobs
            return [CompletionItem(job.id, help=f"{job.root.name}, {job.state}") for job in newest]
        query = (
            sa.select(Task.root_id, Task.name, job_state(Task).label("state"))
            # A range can use the index in any collation. No id contains a letter after f.
            .where(Task.root_id >= typed, Task.root_id < f"{typed}g", Task.root_id.startswith(typed, autoescape=True))
            .where(is_current_step(Task), job_state(Task).in_(in_states))
        )
        return [
            CompletionItem(row.root_id, help=f"{row.name}, {row.state}")
            for row in db.session.execute(query.order_by(Task.root_id).limit(MAX_COMPLETIONS))
        ]

    return _completer(offer)


def state_names(_context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the name of a state, ignoring case."""
    return _starting_with(typed.upper(), states.ALL)


def _usernames(typed: str) -> list[CompletionItem]:
    name = sa.func.lower(User.username)
    query = sa.select(User.username).where(name >= typed.lower()).order_by(name).limit(MAX_COMPLETIONS)
    return [CompletionItem(name) for name in db.session.scalars(query) if name.lower().startswith(typed.lower())]


def _workers_of_jobs(typed: str) -> list[CompletionItem]:
    """Complete workers that run or have run a task. Each name costs one index lookup."""
    running = db.session.scalars(sa.select(Task.worker).where(Task.unfinished, Task.worker.is_not(None)).distinct())
    names = set(running)
    lowest = sa.select(sa.func.min(Task.worker)).where(Task.finished_at.is_not(None))
    worker = db.session.scalar(lowest.where(Task.worker >= typed))
    while worker is not None and worker.startswith(typed) and len(names) < MAX_COMPLETIONS:
        names.add(worker)
        worker = db.session.scalar(lowest.where(Task.worker > worker))
    return _starting_with(typed, (name for name in names if name))


def _starting_with(typed: str, names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(typed)]


def _completer_of(names: Callable[[], Iterable[str]]) -> Completer:
    return _completer(lambda typed: _starting_with(typed, names()))


def _completer(offer: Offer) -> Completer:
    def complete(context: click.Context, _parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        app = context.ensure_object(ScriptInfo).load_app()
        futures = ConcurrentProbes(app).run({"completion": lambda: list(offer(typed))}, DEADLINE)
        try:
            offered: list[CompletionItem] = futures["completion"].result(timeout=0)
        except Exception:  # an error message would disturb the command line that is being typed
            return []
        return offered

    return complete


usernames = _completer(_usernames)
workers = _completer_of(registered_workers)
workers_of_jobs = _completer(_workers_of_jobs)
queues = _completer_of(known_queues)
runnable = _completer_of(runnable_tasks)
registered = _completer_of(known_tasks)
