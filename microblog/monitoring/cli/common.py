"""The command group ``flask tasks``, its exit codes, and messages about workers that do not reply."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NoReturn

import click

from microblog.cli import EXIT_UNAVAILABLE, Commands, exit_unavailable, print_json
from microblog.extensions import REDIS_UNAVAILABLE
from microblog.monitoring import output
from microblog.monitoring.workers import CommandReply, WorkerReplies, registered_workers


def exit_for_replies(context: click.Context, replies: WorkerReplies) -> None:
    """Report workers that did not reply; exit with EXIT_NOTHING_DONE if there are any, EXIT_UNAVAILABLE if none did."""
    report_silent_workers(replies)
    if not replies.up:
        click.echo("No worker answers.", err=True)
        context.exit(EXIT_UNAVAILABLE)
    if replies.silent:
        context.exit(EXIT_NOTHING_DONE)


def report_silent_workers(replies: WorkerReplies) -> None:
    """Report the workers that did not reply."""
    for name in replies.silent:
        click.echo(_silent_message(name, replies.last_seen[name]), err=True)


def exit_for_silent_worker(context: click.Context, name: str) -> NoReturn:
    """Report that the worker `name` does not reply, or that it does not exist, and exit."""
    last_seen = registered_workers()
    if name in last_seen:
        click.echo(_silent_message(name, last_seen[name]), err=True)
        context.exit(EXIT_UNAVAILABLE)
    click.echo(f"There is no worker called {name}; known workers: {', '.join(sorted(last_seen)) or 'none'}.", err=True)
    context.exit(EXIT_USAGE_ERROR)


def print_command_replies(context: click.Context, replies: list[CommandReply], as_json: bool, note: str = "") -> None:
    """Print the result of a command at each worker, and `note` if at least one worker executed it.

    Exit with EXIT_UNAVAILABLE if no worker replied, or with EXIT_NOTHING_DONE if one did not execute the command.
    """
    if as_json:
        print_json([command_reply_as_json(reply) for reply in replies])
    for reply in replies:
        if not (as_json and reply.done):
            click.echo(f"{reply.worker} {reply.sentence}", err=not reply.done)
    if note and any(reply.done for reply in replies):
        click.echo(note, err=True)
    if not any(reply.answered for reply in replies):
        click.echo("No worker answers; nothing was done.", err=True)
        context.exit(EXIT_UNAVAILABLE)
    if not all(reply.done for reply in replies):
        context.exit(EXIT_NOTHING_DONE)


def command_reply_as_json(reply: CommandReply) -> dict[str, Any]:
    """Return the result of a command at a worker as JSON."""
    return {"worker": reply.worker, "done": reply.done, "outcome": reply.sentence}


def _silent_message(name: str, last_seen: datetime) -> str:
    return f"{name} does not answer; it was last seen at {output.format_time(last_seen)} UTC."


EXIT_NOTHING_DONE, EXIT_USAGE_ERROR = 1, 2  # exit codes; 2 is also click's code for a usage error


class OperatorGroup(Commands):
    """A command group that reports an unavailable database or Redis with one sentence on stderr."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except REDIS_UNAVAILABLE as error:
            exit_unavailable(context, f"Redis is unavailable: {error}")


HELP = """Inspect and control the jobs of all users.

\b
Each command has --help with an example, and --json. To enable shell completion (bash; similar for zsh and fish):
  eval "$(_FLASK_COMPLETE=bash_source flask)"
"""

tasks = OperatorGroup("tasks", help=HELP, short_help="Inspect and control the jobs of all users.")

worker_timeout = click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="How long to wait for the workers to answer.",
)
task_ids = click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
