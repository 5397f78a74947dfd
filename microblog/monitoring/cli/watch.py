"""``flask tasks watch`` and ``tail``: live views of jobs and events."""

from __future__ import annotations

import os
import sys

import click
import orjson
from flask import Flask, current_app
from rich.console import Console

from microblog.monitoring import events
from microblog.monitoring.cli.common import WRONG, tasks

BY_SIGNAL = 128  # and the number of the signal: the exit code that shells know


@tasks.command("watch")
@click.pass_context
def watch(context: click.Context) -> None:
    """Watch workers, queues and jobs on a live screen, and steer the jobs by keys.

    It goes on while Redis or the database is away, with what the other one tells. The key ? lists all keys; q quits.

    \b
    Example: watch the jobs of a deployment
      flask tasks watch
    """
    from microblog.monitoring.watch.console import watch as run
    from microblog.monitoring.watch.terminal import usable

    console = Console()
    if not usable(console):
        click.echo("watch needs a terminal, to draw on and for its keys; flask tasks status and tail do not.", err=True)
        context.exit(WRONG)
    ended_by = run(_app(), console)
    if ended_by is not None and ended_by.name != "SIGINT":
        context.exit(BY_SIGNAL + ended_by)


@tasks.command("tail")
@click.option("--task", metavar="NAME", help="Only events of tasks of this name, such as export_posts.")
@click.option("--job", metavar="ID", help="Only events of this job; the id may be that of any of its steps.")
@click.option("--worker", metavar="NAME", help="Only events of this worker, such as worker1@host.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as JSON, one a line, and nothing else.")
def tail(task: str | None, job: str | None, worker: str | None, as_json: bool) -> None:
    """Print what happens, an event a line, until Ctrl-C.

    Events are Celery's own, of workers and tasks, and the progress of jobs. While Redis is away there are none; it
    goes on once Redis is back. What is to be said of that goes to stderr.

    \b
    Example: how exports come along
      flask tasks tail --task export_posts
    Example: the names of all tasks that fail
      flask tasks tail --json | jq -r 'select(.type == "task-failed").name'
    """
    try:
        for event in events.EventTail(_app(), events.EventFilter(task, job, worker)).read():
            if isinstance(event, str):
                click.echo(event, err=True)
            elif as_json:
                click.echo(orjson.dumps(event))
            else:
                click.secho(events.event_line(event), fg=events.state_colour(event))
    except KeyboardInterrupt:
        pass  # the way to end it
    except BrokenPipeError:
        with open(os.devnull, "w") as nowhere:  # where what is left in the buffer goes
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _app() -> Flask:
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    return app
