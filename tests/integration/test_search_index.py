"""The index of the search: what `flask search` tells of it, and how it is mended."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.jobs.models import find_job
from microblog.posts.models import Post
from microblog.search import index, tasks
from microblog.search.find import find
from microblog.search.query import Query
from microblog.taskqueue import launch, states
from microblog.taskqueue.interface import AlreadyRunning
from microblog.taskqueue.models import Task
from tests.support.console import Run, commands
from tests.support.servers import Worker

pytestmark = pytest.mark.both_databases

POSTS = 7


@pytest.fixture
def run(app: Flask) -> Run:
    return commands(app, "search")


@pytest.fixture
def posts(make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch) -> None:
    """Some, of which each two make a batch."""
    monkeypatch.setattr(index, "BATCH", 2)
    author = make_user("susan").id
    db.session.add_all(Post(body=f"apples {number}", user_id=author) for number in range(POSTS))
    db.session.commit()


def edit_past_the_index() -> None:
    """Every post, by one that knows nothing of words."""
    db.session.execute(sa.text("UPDATE post SET body = replace(body, 'apples', 'pears')"))
    db.session.commit()


def count(word: str) -> int:
    db.session.rollback()
    return len(find(Query.parse(word)).page.items)


@pytest.mark.usefixtures("posts")
def test_reindexing_finds_what_a_search_does_not_and_tells_how_far_it_is(run: Run, worker: Worker) -> None:
    edit_past_the_index()
    before = run("check")
    assert (before.exit_code, count("apples"), count("pears")) == (1, POSTS, 0)
    assert before.stdout == f"{POSTS} posts: 0 not indexed, {POSTS} indexed with other words.\n"

    done = run("reindex", "--wait")
    again = run("reindex", "--wait", "--json")

    assert (done.exit_code, done.stdout) == (0, f"Compared {POSTS} posts, {POSTS} of them are indexed anew.\n")
    job = json.loads(again.stdout)
    assert (again.exit_code, job["state"]) == (0, states.SUCCESS)
    assert job["result"] == {"posts": POSTS, "changed": 0, "rebuilt": False}
    assert job["steps"][0]["progress"]["message"] == f"{POSTS} of {POSTS} posts"
    assert (count("apples"), count("pears"), run("check").exit_code) == (0, POSTS, 0)


@pytest.mark.usefixtures("posts")
def test_only_one_reindexing_is_launched_at_a_time(run: Run) -> None:
    launched = run("reindex", "--json")

    refused = run("reindex")

    job_id = json.loads(launched.stdout)["id"]
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"{job_id}: reindexing is under way already")
    job = find_job(job_id)
    assert job is not None
    assert job.root.user_id is None


def test_two_at_once_launch_one_reindexing(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    both_come = threading.Barrier(2)

    def launch_task(*arguments: str) -> Task:
        with contextlib.suppress(threading.BrokenBarrierError):  # one that has to wait does not come
            both_come.wait(timeout=1)
        return launch.launch_task(*arguments)

    def launch_one() -> str:
        with app.app_context(), contextlib.suppress(AlreadyRunning):
            return tasks.launch_reindexing()
        return ""

    monkeypatch.setattr(tasks, "launch_task", launch_task)
    with ThreadPoolExecutor(2) as pool:
        launched = [one.result() for one in [pool.submit(launch_one) for _each in range(2)]]

    assert db.session.scalars(sa.select(Task.id)).all() == [one for one in launched if one]


@pytest.mark.usefixtures("posts")
def test_what_was_interrupted_is_done_by_the_next_run_and_the_search_answers_meanwhile() -> None:
    edit_past_the_index()
    interrupted = index.refresh()

    assert next(interrupted) == (2, 2)
    assert (count("apples"), count("pears")) == (POSTS - 2, 2)
    interrupted.close()

    assert list(index.refresh()) == [(2, 0), (2, 2), (2, 2), (1, 1)]
    assert index.look().sound


@pytest.mark.usefixtures("posts")
def test_a_check_as_json_is_json_alone(run: Run) -> None:
    result = run("check", "--json")

    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"posts": POSTS, "missing": 0, "wrong": 0, "whole": True, "sound": True}


@pytest.mark.parametrize("database", ["sqlite"])  # PostgreSQL's index cannot part from its table
@pytest.mark.usefixtures("posts")
def test_an_index_of_the_databases_own_that_is_broken_is_made_anew(run: Run) -> None:
    db.session.execute(sa.text("INSERT INTO post_fts(post_fts) VALUES ('delete-all')"))
    db.session.commit()
    assert count("apples") == 0
    assert run("check").stdout.endswith("The database's own index is broken.\n")

    assert index.mend()

    assert (count("apples"), run("check").exit_code) == (POSTS, 0)
    assert not index.mend()
