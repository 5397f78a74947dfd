"""Steering many jobs from a page: those that were chosen, or all that match a filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice

from microblog.jobs.job import Job, find
from microblog.monitoring import jobs, steering
from microblog.monitoring.filters import Filters
from microblog.monitoring.steering import Outcome
from microblog.taskqueue import states

MOST_AT_ONCE = 500  # jobs that one request steers: it is to be answered before its reader gives up
MOST_COUNTED = 10_000
EXAMPLES = 3  # refusals that are told in full


@dataclass(frozen=True)
class Action:
    """What can be done to a job, and the states of a job in which it can."""

    act: Callable[[Job], Outcome]
    states: frozenset[str]


ACTIONS = {
    "cancel": Action(steering.cancel, frozenset(states.UNFINISHED)),
    "retry": Action(steering.retry, frozenset({states.FAILURE, states.REVOKED})),
}


@dataclass
class Tally:
    """How many jobs it was done to, how many it could not be done to, and a few of these."""

    done: int = 0
    refused: int = 0
    examples: list[Outcome] = field(default_factory=list)

    def take(self, outcome: Outcome) -> None:
        """Count one in."""
        if outcome.done:
            self.done += 1
            return
        self.refused += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(outcome)


def steer(action: str, task_ids: Iterable[str]) -> Tally:
    """Do `action` to the jobs of these tasks, at most MOST_AT_ONCE; unknown ones are left out."""
    tally = Tally()
    for task_id in islice(dict.fromkeys(task_ids), MOST_AT_ONCE):
        if (job := find(task_id)) is not None:
            tally.take(ACTIONS[action].act(job))
    return tally


def narrowed(action: str, filters: Filters, until: datetime) -> Filters | None:
    """The jobs among those of `filters` to which `action` can be done, and that were created before `until`.

    None if there can be none.
    """
    wanted = filters.within(ACTIONS[action].states)
    if not wanted:
        return None
    before = min(filter(None, (filters.created_before, until)))
    return replace(filters, states=wanted, created_before=before)


def ids(filters: Filters | None) -> Iterator[str]:
    """The ids of the jobs that are meant, as many as are steered at once."""
    return islice(jobs.ids(filters), MOST_AT_ONCE) if filters else iter(())


def count(filters: Filters | None) -> int:
    """How many jobs are meant; counting ends behind MOST_COUNTED."""
    return sum(1 for _id in islice(jobs.ids(filters), MOST_COUNTED + 1)) if filters else 0
