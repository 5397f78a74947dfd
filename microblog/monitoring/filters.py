"""Filters of jobs, and queries that find the matching jobs by an index, whatever the size of the table.

A list shows jobs, but the table contains steps. A filter on a job is a condition on one of its rows: on the current
step (the one that ended the job, or the first unfinished one), on the step with a given name, or on the root. The query
starts from that row, so that an index returns the jobs in the order of the list. Unfinished rows are few and share one
index; the indexes by queue, worker and name contain finished rows only, so that a running task does not update them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from microblog.taskqueue import states
from microblog.taskqueue.models import Task

Conditions = list[sa.ColumnElement[bool]]
ALL = frozenset(states.ALL)
UNSUCCESSFUL = frozenset({states.FAILURE, states.REVOKED})


class Order(StrEnum):
    """Order of a list: by creation, or by end, which includes ended jobs only."""

    NEWEST = "newest"
    OLDEST = "oldest"
    ENDED = "ended"


@dataclass(frozen=True)
class Filters:
    """Conditions on jobs, all of which must hold; without any, every job matches.

    `states` are states of a job, one of which must match. `queue` and `worker` are those of the current step, `name`
    that of any step. `error` is searched for in the error and the traceback, ignoring case, and so matches failed jobs
    only. `created_after` and `created_before` limit the time of creation, and are inclusive.
    """

    states: frozenset[str] = frozenset()
    user_id: int | None = None
    name: str | None = None
    queue: str | None = None
    worker: str | None = None
    error: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    @property
    def given(self) -> bool:
        """Return whether any condition is set."""
        return self != Filters()

    @property
    def matching_states(self) -> frozenset[str]:
        """The states that match; only FAILURE can match if `error` is set."""
        matching = self.states or ALL
        return matching & {states.FAILURE} if self.error is not None else matching

    def within(self, allowed: Collection[str]) -> frozenset[str]:
        """Return the states that match, of those that are `allowed`."""
        return self.matching_states & frozenset(allowed)


@dataclass(frozen=True)
class Search:
    """A query for the keys of jobs, `time` and the root's id: each job once, unsorted.

    `found` is true for jobs that contain the requested text; the others were only searched for it.
    """

    time: sa.SQLColumnExpression[datetime] | sa.SQLColumnExpression[datetime | None]
    root_id: sa.SQLColumnExpression[str]
    found: sa.ColumnElement[bool]
    conditions: Conditions

    def query(self) -> sa.Select[Any, str, bool]:
        """Return the query, to be sorted and limited."""
        return sa.select(self.time, self.root_id, self.found).where(*self.conditions)


def build_searches(filters: Filters, order: Order) -> list[Search]:
    """Return the queries that together find the jobs that match `filters`, each job once."""
    if order is Order.ENDED:
        return list(_ended(filters))
    if filters.error is not None:
        return [_by_state_index(state, filters) for state in filters.matching_states]
    if filters.user_id is not None or filters == Filters(
        created_after=filters.created_after, created_before=filters.created_before
    ):
        return [_by_root(filters, filters.matching_states)]
    if filters.queue is None and filters.worker is None and filters.name is None:
        return list(_by_state(filters))
    return list(_by_step(filters))


def is_current_step(step: type[Task]) -> sa.ColumnElement[bool]:
    """Return the condition that `step` is the current step of its job: jobs.models.Job.current in SQL.

    Uses scalar subqueries, which the planner evaluates row by row; a NOT EXISTS may become a join over the whole table.
    """
    unsuccessful = _agg(step, lambda other: sa.func.min(other.position), lambda other: other.state != states.SUCCESS)
    last = _agg(step, lambda other: sa.func.max(other.position))
    return _equal(step.position, sa.func.coalesce(unsuccessful, last))


def job_state(step: type[Task]) -> sa.ColumnElement[str]:
    """Return the state of the job whose current step is `step`: jobs.models.Job.state in SQL."""
    between_steps = sa.and_(step.position > 0, step.state == states.PENDING)
    return sa.case((between_steps, states.PROGRESS), else_=step.state)


def _by_state(filters: Filters) -> Iterator[Search]:
    """Yield one query for each index that contains matching states, at most four."""
    yield from _unfinished(filters)
    for state in sorted(filters.within(UNSUCCESSFUL)):
        yield _by_state_index(state, filters)
    if states.SUCCESS in filters.matching_states:  # nearly all ended jobs: found fastest in list order
        yield _by_root(filters, frozenset({states.SUCCESS}))


def _by_step(filters: Filters) -> Iterator[Search]:
    """Yield a query for unfinished jobs by their own index, and one for the others by name, worker or queue."""
    yield from _unfinished(filters)
    if not (matching := filters.within(states.FINISHED)):
        return
    step = aliased(Task)
    if filters.name is None:
        yield _by_current(step, filters, [step.finished_at.is_not(None)], _subset(matching, states.FINISHED))
        return
    first_named = _agg(step, lambda other: sa.func.min(other.position), lambda other: other.name == filters.name)
    indexed = [step.finished_at.is_not(None), step.name == filters.name]
    without_name = replace(filters, name=None)
    conditions = [*indexed, *_created_between(step, filters), _equal(step.position, first_named)]
    yield Search(
        step.created_at, step.root_id, sa.true(), [*conditions, _has_current(step.root_id, without_name, matching)]
    )


def _unfinished(filters: Filters) -> Iterator[Search]:
    if matching := filters.within(states.UNFINISHED):
        step = aliased(Task)
        indexed: Conditions = [step.unfinished]  # type: ignore[list-item]
        yield _by_current(step, filters, indexed, _subset(matching, states.UNFINISHED))


def _ended(filters: Filters) -> Iterator[Search]:
    if matching := filters.within(states.FINISHED):
        step = aliased(Task)
        of_step = _step_conditions(step, filters, _subset(matching, states.FINISHED))
        conditions = [step.finished_at.is_not(None), *_created_between(step, filters), *of_step]
        yield Search(step.finished_at, step.root_id, _contains_text(filters, step), conditions)


def _by_state_index(state: str, filters: Filters) -> Search:
    step = aliased(Task)
    indexed = step.state == sa.literal(state, literal_execute=True)  # the planner matches the text of partial indexes
    return _by_current(step, filters, [indexed], None)


def _by_root(filters: Filters, matching: frozenset[str]) -> Search:
    root = aliased(Task)
    conditions = [root.position == 0, *_created_between(root, filters)]
    if filters.user_id is not None:
        conditions.append(root.user_id == filters.user_id)
    if matching != ALL or filters.name or filters.queue or filters.worker:
        conditions.append(_has_current(root.id, filters, matching))
    return Search(root.created_at, root.id, sa.true(), conditions)


def _by_current(step: type[Task], filters: Filters, indexed: Conditions, matching: frozenset[str] | None) -> Search:
    """Return a query by current step; `indexed` are the conditions by which the planner recognises an index."""
    conditions = [*indexed, *_created_between(step, filters), *_step_conditions(step, filters, matching)]
    return Search(step.created_at, step.root_id, _contains_text(filters, step), conditions)


def _has_current(root_id: Any, filters: Filters, matching: frozenset[str]) -> sa.ColumnElement[bool]:
    step = aliased(Task)
    return _exists(sa.select(step.id).where(step.root_id == root_id, *_step_conditions(step, filters, matching)))


def _step_conditions(step: type[Task], filters: Filters, matching: frozenset[str] | None) -> Conditions:
    """Return the conditions on a current step; `matching` is None if the query has one on the state already."""
    conditions: Conditions = []
    if matching is not None and matching != ALL:
        state = step.state if matching <= frozenset(states.FINISHED) else job_state(step)
        conditions.append(state.in_(sorted(matching)))
    for column, value in ((step.queue, filters.queue), (step.worker, filters.worker), (step.user_id, filters.user_id)):
        if value is not None:
            conditions.append(column == value)
    if filters.name is not None:
        named = aliased(Task)
        same_job = sa.select(named.id).where(named.root_id == step.root_id, named.name == filters.name)
        conditions.append(_exists(same_job))
    return [*conditions, is_current_step(step)]  # the most expensive condition comes last


def _subset(matching: frozenset[str], kind: Collection[str]) -> frozenset[str] | None:
    """Return `matching`, or None if it is the whole `kind` of states that an index contains."""
    return matching if matching != frozenset(kind) else None


def _created_between(key: type[Task], filters: Filters) -> Conditions:
    conditions = []
    if filters.created_after is not None:
        conditions.append(key.created_at >= filters.created_after)
    if filters.created_before is not None:
        conditions.append(key.created_at <= filters.created_before)
    return conditions


def _contains_text(filters: Filters, step: type[Task]) -> sa.ColumnElement[bool]:
    if filters.error is None:
        return sa.true()
    texts = (step.error, step.traceback)
    return sa.or_(*(sa.func.coalesce(text, "").icontains(filters.error, autoescape=True) for text in texts))


def _agg(step: type[Task], value: Any, condition: Any = None) -> sa.ScalarSelect[Any]:
    """Return the aggregate `value` over the steps of the job of `step` that meet `condition`."""
    other = aliased(Task)
    query = sa.select(value(other)).where(other.root_id == step.root_id)
    return (query.where(condition(other)) if condition else query).scalar_subquery()


def _equal(column: Any, value: Any) -> sa.ColumnElement[bool]:
    """Return the condition that `column` equals the subquery `value`, as a CASE because of PostgreSQL's estimates.

    It expects a CASE to match half of the rows. It expects an equation with a subquery to match one row in two
    hundred, and would then sort all rows instead of reading an index until the page is full.
    """
    return sa.case((column == value, sa.true()), else_=sa.false())


def _exists(query: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that `query` finds a row, evaluated row by row; see is_current_step()."""
    return query.limit(1).scalar_subquery().is_not(None)
