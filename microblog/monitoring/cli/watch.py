"""``flask tasks watch`` and ``tail``: what goes on, as it goes on."""

from __future__ import annotations

import click
from flask import current_app
from rich.console import Console

from microblog.monitoring.cli.group import WRONG, tasks

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
    ended_by = run(current_app._get_current_object(), console)  # type: ignore[attr-defined]
    if ended_by is not None and ended_by.name != "SIGINT":
        context.exit(BY_SIGNAL + ended_by)
