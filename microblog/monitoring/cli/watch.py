"""``flask tasks watch`` and ``tail``: live views of jobs and events."""

from __future__ import annotations

import json
import os
import sys

import click
from rich.console import Console

from microblog.cli import json_flag, json_requested
from microblog.monitoring import events
from microblog.monitoring.cli.common import BY_SIGNAL, EXIT_USAGE_ERROR, tasks
from microblog.taskqueue.interface import celery_app


@tasks.command("watch")
@click.pass_context
def watch(context: click.Context) -> None:
    """Show workers, queues and jobs on a live screen, and cancel or retry jobs with keys.

    While Redis or the database is unavailable, the data of the other one is shown. Press ? for all keys, q to quit.

    \b
    Example: watch the jobs of a deployment
      flask tasks watch
    """
    from microblog.monitoring.watch.main_loop import run_watch
    from microblog.monitoring.watch.terminal import usable

    console = Console()
    if not usable(console):
        click.echo("watch needs a terminal for its screen and keys; flask tasks status and tail do not.", err=True)
        context.exit(EXIT_USAGE_ERROR)
    ended_by = run_watch(celery_app().flask_app, console)
    if ended_by is not None and ended_by.name != "SIGINT":
        context.exit(BY_SIGNAL + ended_by)


@tasks.command("tail")
@click.option("--task", metavar="NAME", help="Only events of tasks of this name, such as export_posts.")
@click.option("--job", metavar="ID", help="Only events of this job; the id may be that of any of its steps.")
@click.option("--worker", metavar="NAME", help="Only events of this worker, such as worker1@host.")
@json_flag(help="Print each event as JSON, one per line, and nothing else.")
def tail(task: str | None, job: str | None, worker: str | None) -> None:
    """Print events as they happen, one per line, until Ctrl-C.

    Events are Celery's worker and task events, and the progress of jobs. While Redis is unavailable there are none;
    the output continues once Redis is available again. Messages about this go to stderr.

    \b
    Example: the progress of exports
      flask tasks tail --task export_posts
    Example: the names of all tasks that fail
      flask tasks tail --json | jq -r 'select(.type == "task-failed").name'
    """
    try:
        for event in events.EventTail(celery_app().flask_app, events.EventFilter(task, job, worker)).read():
            if isinstance(event, str):
                click.echo(event, err=True)
            elif json_requested():
                # Unlike orjson, it has no limit for numbers: a worker's logical clock may be any that it has received.
                click.echo(json.dumps(event, separators=(",", ":")))
            else:
                click.secho(events.event_line(event), fg=events.event_colour(event))
    except KeyboardInterrupt:
        pass  # the usual way to stop the command
    except BrokenPipeError:
        with open(os.devnull, "w") as null_device:  # discards the rest of the buffer
            os.dup2(null_device.fileno(), sys.stdout.fileno())
