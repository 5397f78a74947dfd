"""``flask search``: check and rebuild the index.

Exit codes: 0 success, or the index is consistent; 1 a reindexing is running, was cancelled or failed, or the index is
inconsistent; 2 usage error; 3 the database is unavailable.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from microblog.cli import Commands, json_option, json_requested, print_output
from microblog.extensions import db
from microblog.jobs.models import Job, find_job
from microblog.search import index
from microblog.search.tasks import launch_reindexing
from microblog.taskqueue import states
from microblog.taskqueue.errors import AlreadyRunning

EXIT_FAILED = 1  # an exit code
POLL_INTERVAL = 0.5  # seconds between two queries of a job's state


search = Commands("search", help="Check and rebuild the search index.")


@search.command("reindex")
@click.option("--wait", is_flag=True, help="Wait until the task has ended, and show its progress.")
@json_option
@click.pass_context
def reindex(context: click.Context, wait: bool) -> None:
    """Launch the task that compares all posts with the index and repairs it. The search remains available.

    \b
    Example:
      flask search reindex --wait
    """
    try:
        job_id = launch_reindexing()
    except AlreadyRunning as error:
        running = error.task.id if error.task else ""
        click.echo(f"{running}: reindexing is already running; flask tasks show {running} shows progress.", err=True)
        context.exit(EXIT_FAILED)
    if not (wait or json_requested()):
        click.echo(f"{job_id}: launched reindex_posts. flask tasks show {job_id} shows progress.")
        return
    job = _wait_for(job_id) if wait else _fetch_job(job_id)
    print_output(job, _print_ended, to_json=Job.to_dict)
    if wait and job.state != states.SUCCESS:
        context.exit(EXIT_FAILED)


def _print_ended(job: Job) -> None:
    if job.state == states.SUCCESS:
        result = job.root.result or {}
        rebuilt = " The database's full-text index was corrupt and has been rebuilt." if result["rebuilt"] else ""
        click.echo(f"Compared {result['posts']} posts, {result['changed']} of them were reindexed.{rebuilt}")
    else:
        click.echo(f"The task ended as {job.state}. {job.current.error or ''}".rstrip(), err=True)


@search.command("check")
@json_option
@click.pass_context
def check(context: click.Context) -> None:
    """Compare all posts with the index without changing anything. Exits with 1 if the index is inconsistent.

    \b
    Example:
      flask search check
    """
    state = index.check()
    print_output(state, _print_state, to_json=lambda state: asdict(state) | {"sound": state.consistent})
    if not state.consistent:
        click.echo("flask search reindex repairs it.", err=True)
        context.exit(EXIT_FAILED)


def _print_state(state: index.IndexState) -> None:
    click.echo(f"{state.posts} posts: {state.missing} not indexed, {state.wrong} indexed with outdated terms.")
    if not state.whole:
        click.echo("The database's full-text index is corrupt.")


def _wait_for(job_id: str) -> Job:
    """Return the job once it has ended; without --json, print its progress to stderr when it changes."""
    printed = ""
    while True:
        job = _fetch_job(job_id)
        if not job.unfinished:
            return job
        if not json_requested() and (message := job.root.message) and message != printed:
            printed = message
            click.echo(printed, err=True)
        time.sleep(POLL_INTERVAL)


def _fetch_job(job_id: str) -> Job:
    db.session.rollback()
    db.session.expire_all()
    job = find_job(job_id)
    if job is None:
        raise click.ClickException(f"{job_id} no longer exists.")
    return job
