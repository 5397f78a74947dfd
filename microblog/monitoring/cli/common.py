"""The command group ``flask tasks``, and the exit code and message when a worker does not reply."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NoReturn

import click

from microblog.cli import EXIT_UNAVAILABLE, Commands, exit_unavailable, print_json
from microblog.extensions import REDIS_UNAVAILABLE
from microblog.monitoring import output
from microblog.monitoring.workers import CommandReply, WorkerReplies, registered_workers


def end_with(context: click.Context, answers: WorkerReplies) -> None:
    """Name the workers that are silent, and exit accordingly."""
    name_silent(answers)
    if not answers.up:
        click.echo("No worker answers.", err=True)
        context.exit(EXIT_UNAVAILABLE)
    if answers.silent:
        context.exit(NOTHING_DONE)


def name_silent(answers: WorkerReplies) -> None:
    """Name the workers that are silent."""
    for name in answers.silent:
        click.echo(_silence(name, answers.last_seen[name]), err=True)


def refuse_silent(context: click.Context, name: str) -> NoReturn:
    """Say that a worker does not answer, or that there is none of this name, and exit."""
    known = registered_workers()
    if name in known:
        click.echo(_silence(name, known[name]), err=True)
        context.exit(EXIT_UNAVAILABLE)
    click.echo(f"There is no worker called {name}; known are: {', '.join(sorted(known)) or 'none'}.", err=True)
    context.exit(WRONG)


def print_said(context: click.Context, said: list[CommandReply], as_json: bool, note: str = "") -> None:
    """Print what became of a command at each worker, and a `note` if any did it; exit with the worst of their codes."""
    if as_json:
        print_json([in_json(one) for one in said])
    for one in said:
        if not (as_json and one.done):
            click.echo(f"{one.worker} {one.sentence}", err=not one.done)
    if note and any(one.done for one in said):
        click.echo(note, err=True)
    if not any(one.answered for one in said):
        click.echo("No worker answers; nothing was done.", err=True)
        context.exit(EXIT_UNAVAILABLE)
    if not all(one.done for one in said):
        context.exit(NOTHING_DONE)


def in_json(said: CommandReply) -> dict[str, Any]:
    """Return the result of a worker's command as JSON."""
    return {"worker": said.worker, "done": said.done, "outcome": said.sentence}


def _silence(name: str, last_seen: datetime) -> str:
    return f"{name} does not answer; it was last seen at {output.format_time(last_seen)} UTC."


NOTHING_DONE, WRONG = 1, 2  # exit codes; 2 is also click's own for a wrong call


class Operators(Commands):
    """Commands that say in one sentence, on stderr, that the database or Redis is away."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except REDIS_UNAVAILABLE as error:
            exit_unavailable(context, f"Redis does not answer as it should: {error}")


HELP = """See and steer the jobs of all users.

\b
Each command has --help with an example, and --json. For completion by the shell (bash; zsh and fish likewise):
  eval "$(_FLASK_COMPLETE=bash_source flask)"
"""

tasks = Operators("tasks", help=HELP, short_help="See and steer the jobs of all users.")

worker_timeout = click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="How long workers have to answer.",
)
task_ids = click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
