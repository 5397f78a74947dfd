"""``flask tasks list``: every combination of filters, order and page returns exactly the expected jobs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.jobs.models import Job, jobs_with_ids
from microblog.monitoring import job_queries
from microblog.monitoring.filters import Filters, Order
from microblog.pagination import PageRequest, parse_time_key, time_key
from microblog.taskqueue import states
from microblog.taskqueue.models import Task
from tests.support.console import Run, commands

NOW = utcnow().replace(microsecond=0)
NAMES = (("export_posts", "email_export"), ("tidy",), ("count", "count", "email_export"))
WORKERS = (None, "one@host", "two@host")
TRACEBACK = "Traceback (most recent call last):\n  ConnectionRefusedError: 100%_of it"


@pytest.fixture
def run(app: Flask) -> Run:
    return commands(app, "tasks")


def add_step(root_id: str, position: int, name: str, state: str, created_at: datetime, **columns: Any) -> None:
    db.session.add(
        Task(
            id=root_id if position == 0 else f"{root_id}+{position}",
            root_id=root_id,
            position=position,
            name=name,
            state=state,
            signature={"task": name, "args": [], "kwargs": {}, "options": {}},
            created_at=created_at,
            **{"queue": "default"} | columns,
        )
    )


def add_jobs(count: int, users: list[User], rng: random.Random) -> list[Job]:
    """Create jobs in every state that a job can have, oldest first; some have the same creation time."""
    ids = [f"job-{number:03}" for number in range(count)]
    for number, root_id in enumerate(ids):
        names = rng.choice(NAMES)
        reached, ending = rng.randrange(len(names)), rng.choice(states.ALL)
        user = rng.choice([None, *users])
        if user is not None and has_unfinished(user, names):
            user = None
        for position, name in enumerate(names):
            state = ending if position == reached else states.SUCCESS
            if position > reached:
                state = ending if ending in (states.FAILURE, states.REVOKED) else states.PENDING
            ended = state in states.FINISHED
            add_step(
                root_id,
                position,
                name,
                state,
                NOW - timedelta(minutes=(count - number) // 3),
                user_id=user.id if user else None,
                queue=f"{name}-queue",
                worker=rng.choice(WORKERS),
                error=rng.choice(["It broke.", "Refused: 100%_of it"]) if state == states.FAILURE else None,
                traceback=rng.choice([None, TRACEBACK]) if state == states.FAILURE else None,
                finished_at=NOW - timedelta(seconds=rng.randrange(10_000)) if ended else None,
            )
        db.session.commit()
    return jobs_with_ids(ids)


def has_unfinished(user: User, names: tuple[str, ...]) -> bool:
    """Return True if the user has an unfinished task with one of these names; only one is allowed."""
    unfinished = sa.select(Task.id).where(Task.user_id == user.id, Task.name.in_(names), Task.unfinished)
    return db.session.scalar(unfinished.limit(1)) is not None


def matches(filters: Filters, job: Job) -> bool:
    """Apply Filters, as it is documented, to a job in memory."""
    step, text = job.current, f"{job.current.error}\n{job.current.traceback}".lower()
    return (
        (not filters.states or job.state in filters.states)
        and (filters.user_id is None or job.root.user_id == filters.user_id)
        and (filters.name is None or any(each.name == filters.name for each in job.steps))
        and (filters.queue is None or step.queue == filters.queue)
        and (filters.worker is None or step.worker == filters.worker)
        and (filters.error is None or (job.state == states.FAILURE and filters.error.lower() in text))
        and (filters.created_after is None or job.root.created_at >= filters.created_after)
        and (filters.created_before is None or job.root.created_at <= filters.created_before)
    )


def every_filter(users: list[User]) -> dict[str, list[Any]]:
    return {
        "states": [frozenset(), frozenset({states.PROGRESS}), frozenset({states.FAILURE, states.PENDING})]
        + [frozenset({state}) for state in states.ALL],
        "user_id": [None, users[0].id],
        "name": [None, "email_export", "count", "unheard-of"],
        "queue": [None, "email_export-queue", "tidy-queue"],
        "worker": [None, "one@host"],
        "error": [None, "REFUSED", "100%_of", "100x"],
        "created_after": [None, NOW - timedelta(minutes=20)],
        "created_before": [None, NOW - timedelta(minutes=10)],
    }


def all_pages(filters: Filters, order: Order, size: int) -> list[str]:
    """Return the ids of all pages in order, and check that each link to the previous page returns the same page."""
    listed: list[str] = []
    page = job_queries.find_jobs(filters, PageRequest(size=size), order)
    while True:
        listed += [job.id for job in page.jobs]
        if page.next is None:
            return listed
        following = job_queries.find_jobs(filters, PageRequest(after=page.next, size=size), order)
        if following.previous is not None:
            previous = job_queries.find_jobs(filters, PageRequest(before=following.previous, size=size), order)
            assert [job.id for job in previous.jobs] == [job.id for job in page.jobs]
        page = following


def expected(filters: Filters, order: Order, jobs: list[Job]) -> list[str]:
    matching = [job for job in jobs if matches(filters, job)]
    if order is Order.ENDED:
        matching = [job for job in matching if job.finished_at]
    key = (
        (lambda job: (job.finished_at, job.id)) if order is Order.ENDED else (lambda job: (job.root.created_at, job.id))
    )
    return [job.id for job in sorted(matching, key=key, reverse=order is not Order.OLDEST)]


@pytest.mark.both_databases
def test_combined_filters_list_each_job_once(app: Flask, make_user: Callable[..., User]) -> None:
    users, rng = [make_user("susan"), make_user("david")], random.Random(5)
    jobs = add_jobs(60, users, rng)
    choices = every_filter(users)
    single = [{name: value} for name, values in choices.items() for value in values]
    mixed = [{name: rng.choice(choices[name]) for name in rng.sample(list(choices), 3)} for _ in range(20)]
    assert len({job.state for job in jobs}) == len(states.ALL)

    for given in single + mixed:
        filters = Filters(**given)
        assert [job.id for job in job_queries.find_jobs(filters, PageRequest(size=100)).jobs] == expected(
            filters, Order.NEWEST, jobs
        ), given
        assert list(job_queries.find_job_ids(filters)) == expected(filters, Order.NEWEST, jobs), given


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "order",
    [Order.NEWEST, *(pytest.param(one, marks=pytest.mark.exhaustive) for one in Order if one != Order.NEWEST)],
)
def test_pages_cover_the_list_in_every_order(app: Flask, make_user: Callable[..., User], order: Order) -> None:
    users = [make_user("susan"), make_user("david")]
    jobs = add_jobs(60, users, random.Random(7))

    for name, (anything, first, *_) in every_filter(users).items():
        for value in (anything, first):
            filters = Filters(**{name: value})
            assert all_pages(filters, order, size=7) == expected(filters, order, jobs), (name, value)


@pytest.mark.both_databases
def test_error_search_is_limited_per_page(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_queries, "MAX_SEARCHED", 10)
    for number in range(25):
        text = "the needle" if number in (0, 3) else "hay"
        add_step(f"job-{number}", 0, "tidy", states.FAILURE, NOW + timedelta(seconds=number), error=text)
    db.session.commit()
    filters = Filters(error="Needle")

    first = job_queries.find_jobs(filters, PageRequest(size=50))
    second = job_queries.find_jobs(filters, PageRequest(after=first.next, size=50))
    third = job_queries.find_jobs(filters, PageRequest(after=second.next, size=50))

    assert (first.jobs, first.searched) == ([], 10)
    assert (second.jobs, second.searched) == ([], 10)
    assert ([job.id for job in third.jobs], third.searched, third.next) == (["job-3", "job-0"], 5, None)
    assert list(job_queries.find_job_ids(filters)) == ["job-3", "job-0"]


@pytest.mark.both_databases
def test_page_prints_cursor_of_next_page(run: Run) -> None:
    for number in range(5):
        add_step(f"job-{number}", 0, "tidy", states.SUCCESS, NOW + timedelta(seconds=number))
    db.session.commit()

    first = run("list", "--limit", "2", "--json")
    cursor = json.loads(first.stdout)[-1]["cursor"]
    second = run("list", "--limit", "2", "--json", "--after", cursor)
    back = run("list", "--limit", "2", "--json", "--before", json.loads(second.stdout)[0]["cursor"])

    assert first.stderr == f"Next page: --after {cursor}\n"
    assert [job["id"] for job in json.loads(second.stdout)] == ["job-2", "job-1"]
    assert "Previous page: --before" in second.stderr
    assert json.loads(back.stdout) == json.loads(first.stdout)


@pytest.mark.both_databases
def test_list_is_filtered_by_age(run: Run) -> None:
    for days in (0, 2, 30):
        add_step(f"job-{days}", 0, "tidy", states.SUCCESS, utcnow() - timedelta(days=days, minutes=1))
    db.session.commit()

    def listed(*arguments: str) -> list[str]:
        return [job["id"] for job in json.loads(run("list", "--json", *arguments).stdout)]

    assert listed("--newer-than", "10m") == ["job-0"]
    assert listed("--older-than", "30s") == ["job-0", "job-2", "job-30"]
    assert listed("--older-than", "2h", "--newer-than", "1w") == ["job-2"]
    assert listed("--older-than", "3d", "--sort", "oldest") == ["job-30"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--older-than", "yesterday"],
        ["--older-than", "999999w"],
        ["--newer-than", "-1d"],
        ["--after", "7"],
        ["--after", "2026-13-21T09:30:00.000000Z_a"],
        ["--before", "x", "--after", "x"],
        ["--before", "2026-11-21T09:30:00.000000Z_a", "--after", "2026-11-21T09:30:00.000000Z_a"],
        ["--sort", "colour"],
        ["--limit", "10001"],
        ["--worker", "\0"],
        ["--error", "a\udcffb"],
    ],
)
@pytest.mark.parametrize("database", ["sqlite"])
def test_invalid_options_are_refused(run: Run, wrong: list[str]) -> None:
    result = run("list", *wrong)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error" in result.stderr
    assert "Traceback" not in result.stderr


def test_cursor_is_restored_from_text() -> None:
    assert parse_time_key(time_key(NOW, "job-1")) == (NOW, "job-1")
