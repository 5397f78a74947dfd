"""Filters of jobs, and the queries that find the jobs by an index, however many there are.

A list shows jobs, while the table has steps. A filter on a job is a condition on one of its rows: on the current step
(the one that ended it, or the first unfinished one), on the step with a name, or on the root. That row leads the query,
so that an index returns the jobs in the order of the list. Unfinished rows are few and share one index; the indexes by
queue, worker and name contain finished rows only, so that a running task does not update them.
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
SETBACKS = frozenset({states.FAILURE, states.REVOKED})


class Order(StrEnum):
    """The order of a list: by creation, or by end (which includes ended jobs only)."""

    NEWEST = "newest"
    OLDEST = "oldest"
    ENDED = "ended"


@dataclass(frozen=True)
class Filters:
    """Conditions on jobs, all of which must hold; without any, every job matches.

    `states` are states of a job, any of which will do; `queue` and `worker` are those of the step at which it stands;
    `name` is that of any of its steps; `error` is looked for, in whatever case, in the error and the traceback of
    failed jobs, and so leaves no others; a job's age counts from its creation.
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
        """Return whether there is any."""
        return self != Filters()

    @property
    def wanted_states(self) -> frozenset[str]:
        """The states that are let through; a text in an error is one of failures."""
        wanted = self.states or ALL
        return wanted & {states.FAILURE} if self.error is not None else wanted

    def within(self, allowed: Collection[str]) -> frozenset[str]:
        """The states that are let through, of those that are `allowed`."""
        return self.wanted_states & frozenset(allowed)


@dataclass(frozen=True)
class Search:
    """A query for the keys of jobs, each once, in no order yet: `moment` and the root's id.

    `found` is true of those that have the text which is looked for; the others were only looked through.
    """

    moment: sa.SQLColumnExpression[datetime] | sa.SQLColumnExpression[datetime | None]
    root_id: sa.SQLColumnExpression[str]
    found: sa.ColumnElement[bool]
    conditions: Conditions

    def query(self) -> sa.Select[Any, str, bool]:
        """The query, to be narrowed and sorted."""
        return sa.select(self.moment, self.root_id, self.found).where(*self.conditions)


def searches(filters: Filters, order: Order) -> list[Search]:
    """The queries that together find the jobs that `filters` let through, and no job twice."""
    if order is Order.ENDED:
        return list(_ended(filters))
    if filters.error is not None:
        return [_failure_values(state, filters) for state in filters.wanted_states]
    if filters.user_id is not None or filters == Filters(
        created_after=filters.created_after, created_before=filters.created_before
    ):
        return [_by_root(filters, filters.wanted_states)]
    if filters.queue is None and filters.worker is None and filters.name is None:
        return list(_by_state(filters))
    return list(_by_step(filters))


def stands_at(step: type[Task]) -> sa.ColumnElement[bool]:
    """Return whether `step` is the one at which its job stands; jobs.models.Job.current, in SQL.

    In scalar subqueries, which a planner asks row by row: a NOT EXISTS may become a join over the whole table.
    """
    first_to_end = _other(step, lambda other: sa.func.min(other.position), lambda other: other.state != states.SUCCESS)
    last = _other(step, lambda other: sa.func.max(other.position))
    return _equal(step.position, sa.func.coalesce(first_to_end, last))


def job_state(step: type[Task]) -> sa.ColumnElement[str]:
    """The state of the job that stands at `step`; jobs.models.Job.state, in SQL."""
    waits_for_its_turn = sa.and_(step.position > 0, step.state == states.PENDING)
    return sa.case((waits_for_its_turn, states.PROGRESS), else_=step.state)


def _by_state(filters: Filters) -> Iterator[Search]:
    """One query for each index that has a part of the wanted states, at most four."""
    yield from _unfinished(filters)
    for state in sorted(filters.within(SETBACKS)):
        yield _failure_values(state, filters)
    if states.SUCCESS in filters.wanted_states:  # nearly all that have ended: the order of the list finds them soonest
        yield _by_root(filters, frozenset({states.SUCCESS}))


def _by_step(filters: Filters) -> Iterator[Search]:
    """Unfinished jobs by their own index, the others by the name, worker or queue that is wanted."""
    yield from _unfinished(filters)
    if not (wanted := filters.within(states.FINISHED)):
        return
    step = aliased(Task)
    if filters.name is None:
        yield _standing(step, filters, [step.finished_at.is_not(None)], _some_of(wanted, states.FINISHED))
        return
    first = _other(step, lambda other: sa.func.min(other.position), lambda other: other.name == filters.name)
    indexed = [step.finished_at.is_not(None), step.name == filters.name]
    nameless = replace(filters, name=None)
    conditions = [*indexed, *_age(step, filters), _equal(step.position, first)]
    yield Search(
        step.created_at, step.root_id, sa.true(), [*conditions, _exists_standing(step.root_id, nameless, wanted)]
    )


def _unfinished(filters: Filters) -> Iterator[Search]:
    if wanted := filters.within(states.UNFINISHED):
        step = aliased(Task)
        indexed: Conditions = [step.unfinished]  # type: ignore[list-item]
        yield _standing(step, filters, indexed, _some_of(wanted, states.UNFINISHED))


def _ended(filters: Filters) -> Iterator[Search]:
    if wanted := filters.within(states.FINISHED):
        step = aliased(Task)
        of_step = _of_step(step, filters, _some_of(wanted, states.FINISHED))
        conditions = [step.finished_at.is_not(None), *_age(step, filters), *of_step]
        yield Search(step.finished_at, step.root_id, _found(filters, step), conditions)


def _failure_values(state: str, filters: Filters) -> Search:
    step = aliased(Task)
    indexed = step.state == sa.literal(state, literal_execute=True)  # partial indexes are matched by their text
    return _standing(step, filters, [indexed], None)


def _by_root(filters: Filters, wanted: frozenset[str]) -> Search:
    root = aliased(Task)
    conditions = [root.position == 0, *_age(root, filters)]
    if filters.user_id is not None:
        conditions.append(root.user_id == filters.user_id)
    if wanted != ALL or filters.name or filters.queue or filters.worker:
        conditions.append(_exists_standing(root.id, filters, wanted))
    return Search(root.created_at, root.id, sa.true(), conditions)


def _standing(step: type[Task], filters: Filters, indexed: Conditions, wanted: frozenset[str] | None) -> Search:
    """By the step at which a job stands; `indexed` are the conditions by which an index is recognised."""
    conditions = [*indexed, *_age(step, filters), *_of_step(step, filters, wanted)]
    return Search(step.created_at, step.root_id, _found(filters, step), conditions)


def _exists_standing(root_id: Any, filters: Filters, wanted: frozenset[str]) -> sa.ColumnElement[bool]:
    step = aliased(Task)
    return _some(sa.select(step.id).where(step.root_id == root_id, *_of_step(step, filters, wanted)))


def _of_step(step: type[Task], filters: Filters, wanted: frozenset[str] | None) -> Conditions:
    """The conditions on a job's current step. `wanted` is None if the state is already part of the query."""
    conditions: Conditions = []
    if wanted is not None and wanted != ALL:
        state = step.state if wanted <= frozenset(states.FINISHED) else job_state(step)
        conditions.append(state.in_(sorted(wanted)))
    for column, value in ((step.queue, filters.queue), (step.worker, filters.worker), (step.user_id, filters.user_id)):
        if value is not None:
            conditions.append(column == value)
    if filters.name is not None:
        named = aliased(Task)
        same_job = sa.select(named.id).where(named.root_id == step.root_id, named.name == filters.name)
        conditions.append(_some(same_job))
    return [*conditions, stands_at(step)]  # what costs most comes last


def _some_of(wanted: frozenset[str], kind: Collection[str]) -> frozenset[str] | None:
    """`wanted`, or None if that is all of a `kind` that an index has."""
    return wanted if wanted != frozenset(kind) else None


def _age(key: type[Task], filters: Filters) -> Conditions:
    conditions = []
    if filters.created_after is not None:
        conditions.append(key.created_at >= filters.created_after)
    if filters.created_before is not None:
        conditions.append(key.created_at <= filters.created_before)
    return conditions


def _found(filters: Filters, step: type[Task]) -> sa.ColumnElement[bool]:
    if filters.error is None:
        return sa.true()
    texts = (step.error, step.traceback)
    return sa.or_(*(sa.func.coalesce(text, "").icontains(filters.error, autoescape=True) for text in texts))


def _other(step: type[Task], value: Any, condition: Any = None) -> sa.ScalarSelect[Any]:
    """A `value` over the steps of the job of `step`, of those that meet the `condition`."""
    other = aliased(Task)
    query = sa.select(value(other)).where(other.root_id == step.root_id)
    return (query.where(condition(other)) if condition else query).scalar_subquery()


def _equal(column: Any, value: Any) -> sa.ColumnElement[bool]:
    """The condition that `column` equals the subquery `value`, in a CASE: PostgreSQL expects half of the rows to match.

    Of an equation with a subquery it expects one in two hundred, and would rather sort all rows than read an index
    until a page is full.
    """
    return sa.case((column == value, sa.true()), else_=sa.false())


def _some(query: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """Return whether `query` finds anything, for each row anew (see stands_at)."""
    return query.limit(1).scalar_subquery().is_not(None)
