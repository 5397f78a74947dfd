"""Steering many jobs from a page: those that were chosen, or all that match a filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice

from microblog.jobs.job import Job, find
from microblog.monitoring import steering
from microblog.monitoring.filters import Filters
from microblog.monitoring.steering import Outcome

MOST_AT_ONCE = 500  # jobs that one request steers: it is to be answered before its reader gives up
EXAMPLES = 3  # refusals that are told in full


@dataclass(frozen=True)
class Action:
    """What can be done to a job, and the ids of those jobs among filtered ones to which it can be, newest first."""

    act: Callable[[Job], Outcome]
    choose: Callable[[Filters], list[str]]


ACTIONS = {
    "cancel": Action(steering.cancel, steering.cancellable),
    "retry": Action(steering.retry, steering.retryable),
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


def chosen(action: str, filters: Filters, until: datetime) -> list[str]:
    """The ids of the jobs of `filters` that were created before `until` and to which `action` can be done."""
    before = min(filter(None, (filters.created_before, until)))
    return ACTIONS[action].choose(replace(filters, created_before=before))
