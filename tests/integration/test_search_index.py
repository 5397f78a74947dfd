"""The search index: checking and repairing it, with ``flask search`` and without."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Generator
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
from microblog.taskqueue.errors import AlreadyRunning
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
    """A few posts, indexed in batches of two."""
    monkeypatch.setattr(index, "BATCH", 2)
    author = make_user("susan").id
    db.session.add_all(Post(body=f"apples {number}", user_id=author) for number in range(POSTS))
    db.session.commit()


def edit_without_indexing() -> None:
    """Edit every post with a statement that does not update its search terms."""
    db.session.execute(sa.text("UPDATE post SET body = replace(body, 'apples', 'pears')"))
    db.session.commit()


def count(word: str) -> int:
    db.session.rollback()
    return len(find(Query.parse(word)).page.items)


@pytest.mark.usefixtures("posts")
def test_reindex_repairs_terms_and_reports_progress(run: Run, worker: Worker) -> None:
    edit_without_indexing()
    check = run("check")
    assert (check.exit_code, count("apples"), count("pears")) == (1, POSTS, 0)
    assert check.stdout == f"{POSTS} posts: 0 not indexed, {POSTS} indexed with outdated terms.\n"

    first = run("reindex", "--wait")
    second = run("reindex", "--wait", "--json")

    assert (first.exit_code, first.stdout) == (0, f"Compared {POSTS} posts, {POSTS} of them were reindexed.\n")
    job = json.loads(second.stdout)
    assert (second.exit_code, job["state"]) == (0, states.SUCCESS)
    assert job["result"] == {"posts": POSTS, "changed": 0, "rebuilt": False}
    assert job["steps"][0]["progress"]["message"] == f"{POSTS} of {POSTS} posts"
    assert (count("apples"), count("pears"), run("check").exit_code) == (0, POSTS, 0)


@pytest.mark.usefixtures("posts")
def test_second_reindex_is_refused(run: Run) -> None:
    launched = run("reindex", "--json")

    refused = run("reindex")

    job_id = json.loads(launched.stdout)["id"]
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"{job_id}: reindexing is already running")
    job = find_job(job_id)
    assert job is not None
    assert job.root.user_id is None


def test_concurrent_reindex_launches_one_job(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(2)

    def launch_task(*arguments: str) -> Task:
        with contextlib.suppress(threading.BrokenBarrierError):  # a blocked thread does not reach the barrier
            barrier.wait(timeout=1)
        return launch.launch_task(*arguments)

    def launch_one() -> str:
        with app.app_context(), contextlib.suppress(AlreadyRunning):
            return tasks.launch_reindexing()
        return ""

    monkeypatch.setattr(tasks, "launch_task", launch_task)
    with ThreadPoolExecutor(2) as pool:
        launched = [one.result() for one in [pool.submit(launch_one) for _ in range(2)]]

    assert db.session.scalars(sa.select(Task.id)).all() == [one for one in launched if one]


@pytest.mark.usefixtures("posts")
def test_interrupted_reindex_is_completed_by_next_run() -> None:
    edit_without_indexing()
    interrupted = index.refresh()
    assert isinstance(interrupted, Generator)

    assert next(interrupted) == (2, 2)
    assert (count("apples"), count("pears")) == (POSTS - 2, 2)
    interrupted.close()

    assert list(index.refresh()) == [(2, 0), (2, 2), (2, 2), (1, 1)]
    assert index.check().consistent


@pytest.mark.usefixtures("posts")
def test_check_json_output(run: Run) -> None:
    result = run("check", "--json")

    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {"posts": POSTS, "missing": 0, "wrong": 0, "whole": True, "sound": True}


@pytest.mark.parametrize("database", ["sqlite"])  # PostgreSQL's index cannot diverge from its table
@pytest.mark.usefixtures("posts")
def test_broken_fts_index_is_rebuilt(run: Run) -> None:
    db.session.execute(sa.text("INSERT INTO post_fts(post_fts) VALUES ('delete-all')"))
    db.session.commit()
    assert count("apples") == 0
    assert run("check").stdout.endswith("The database's full-text index is corrupt.\n")

    assert index.repair()

    assert (count("apples"), run("check").exit_code) == (POSTS, 0)
    assert not index.repair()
