"""``flask search``: check and rebuild the index.

Exit codes: 0 done, or the index is sound; 1 a reindexing is running, was cancelled or failed, or the index is not
sound; 2 wrong usage; 3 the database is unavailable.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from microblog.cli import Commands, as_json, print_json
from microblog.extensions import db
from microblog.jobs.models import Job, find_job
from microblog.search import index
from microblog.search.tasks import launch_reindexing
from microblog.taskqueue import states
from microblog.taskqueue.interface import AlreadyRunning

FAILED = 1  # an exit code
PAUSE = 0.5  # seconds between two looks at a job


search = Commands("search", help="Look after the index of the search.")


@search.command("reindex")
@click.option("--wait", is_flag=True, help="Return when it has ended, and tell how far it is.")
@as_json
@click.pass_context
def reindex(context: click.Context, wait: bool, as_json: bool) -> None:
    """Launch the task that compares all posts with the index, and mends it. Meanwhile the search answers.

    \b
    Example:
      flask search reindex --wait
    """
    try:
        job_id = launch_reindexing()
    except AlreadyRunning as refused:
        running = refused.task.id if refused.task else ""
        click.echo(f"{running}: reindexing is under way already; flask tasks show {running} tells how far.", err=True)
        context.exit(FAILED)
    if not (wait or as_json):
        click.echo(f"{job_id}: launched reindex_posts. flask tasks show {job_id} tells how far it is.")
        return
    job = _wait_for(job_id, quiet=as_json) if wait else _look_at(job_id)
    if as_json:
        print_json(job.to_dict())
    elif job.state == states.SUCCESS:
        result = job.root.result or {}
        rebuilt = " The database's own index was broken, and is made anew." if result["rebuilt"] else ""
        click.echo(f"Compared {result['posts']} posts, {result['changed']} of them are indexed anew.{rebuilt}")
    else:
        click.echo(f"It ended as {job.state}. {job.current.error or ''}".rstrip(), err=True)
    if wait and job.state != states.SUCCESS:
        context.exit(FAILED)


@search.command("check")
@as_json
@click.pass_context
def check(context: click.Context, as_json: bool) -> None:
    """Compare all posts with the index, and change nothing. Exits with 1 if a search would not find what it should.

    \b
    Example:
      flask search check
    """
    state = index.look()
    if as_json:
        print_json(asdict(state) | {"sound": state.sound})
    else:
        click.echo(f"{state.posts} posts: {state.missing} not indexed, {state.wrong} indexed with other words.")
        if not state.whole:
            click.echo("The database's own index is broken.")
    if not state.sound:
        click.echo("flask search reindex mends it.", err=True)
        context.exit(FAILED)


def _wait_for(job_id: str, *, quiet: bool) -> Job:
    """The job once it has ended; unless `quiet`, each time that it has come on is told on stderr."""
    told = ""
    while True:
        job = _look_at(job_id)
        if not job.unfinished:
            return job
        if not quiet and (message := job.root.message) and message != told:
            told = message
            click.echo(told, err=True)
        time.sleep(PAUSE)


def _look_at(job_id: str) -> Job:
    db.session.rollback()
    db.session.expire_all()
    job = find_job(job_id)
    if job is None:
        raise click.ClickException(f"{job_id} is gone.")
    return job
