"""The command group ``flask tasks``, its exit codes, shared options and messages about workers that do not reply."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, NoReturn

import click

from microblog.accounts.models import User
from microblog.cli import EXIT_UNAVAILABLE, Commands, exit_unavailable, json_requested, print_json
from microblog.clock import utcnow
from microblog.extensions import REDIS_UNAVAILABLE
from microblog.monitoring import output
from microblog.monitoring.actions import ActionResult
from microblog.monitoring.cli import completion
from microblog.monitoring.filters import Filters
from microblog.monitoring.job_queries import MAX_SEARCHED
from microblog.monitoring.workers import CommandReply, WorkerReplies, registered_workers
from microblog.taskqueue import states
from microblog.validators import is_storable

EXIT_NOTHING_DONE, EXIT_USAGE_ERROR = 1, 2  # exit codes; 2 is also click's code for a usage error
BY_SIGNAL = 128  # plus the signal's number: the exit code that shells use for a process that a signal ended


class OperatorGroup(Commands):
    """A command group that reports an unavailable database or Redis with one message on stderr."""

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


def exit_for_replies(context: click.Context, replies: WorkerReplies) -> None:
    """Report workers that did not reply; exit with EXIT_NOTHING_DONE if there are any, EXIT_UNAVAILABLE if none did."""
    report_silent_workers(replies)
    if not replies.up:
        click.echo("No worker replied.", err=True)
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


def print_outcomes(outcomes: Mapping[str, CommandReply | ActionResult]) -> None:
    """Print the outcome of an action for each of its targets; with --json, only refusals, on stderr."""
    for target, outcome in outcomes.items():
        if not (outcome.done and json_requested()):
            click.echo(f"{target} {outcome.message}", err=not outcome.done)


def print_command_replies(context: click.Context, replies: list[CommandReply], note: str = "") -> None:
    """Print the result of a command at each worker, and `note` if at least one worker executed it.

    Exit with EXIT_UNAVAILABLE if no worker replied, or with EXIT_NOTHING_DONE if one did not execute the command.
    """
    if json_requested():
        print_json([command_reply_as_json(reply) for reply in replies])
    print_outcomes({reply.worker: reply for reply in replies})
    if note and any(reply.done for reply in replies):
        click.echo(note, err=True)
    if not any(reply.replied for reply in replies):
        click.echo("No worker replied; nothing was done.", err=True)
        context.exit(EXIT_UNAVAILABLE)
    if not all(reply.done for reply in replies):
        context.exit(EXIT_NOTHING_DONE)


def command_reply_as_json(reply: CommandReply) -> dict[str, Any]:
    """Return the result of a command at a worker as JSON."""
    return {"worker": reply.worker, "done": reply.done, "outcome": reply.message}


def _silent_message(name: str, last_seen: datetime) -> str:
    return f"{name} does not respond; it was last seen at {output.format_time(last_seen)} UTC."


worker_timeout = click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="How long to wait for the workers to reply.",
)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=36500)
_AGE = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_SINCE = re.compile(r"(\d{1,6})\s*([smhdw])", re.I)


class Since(click.ParamType[datetime]):
    """Type of a time in the past: an age such as ``24h``, or an ISO 8601 date or time, UTC unless it has an offset."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> datetime:
        """Return `value` as an aware datetime."""
        if isinstance(value, datetime):
            return value
        try:
            if age := _SINCE.fullmatch(value.strip()):
                return utcnow() - timedelta(**{_UNITS[age[2].lower()]: int(age[1])})
            time = datetime.fromisoformat(value)
            return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither an age such as 90m, 24h or 7d nor a time such as 2026-01-31T12:00.")


class Age(click.ParamType[timedelta]):
    """Type of a duration: ``45s``, ``10m``, ``2h``, ``3d``, ``1w``."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return `value` as a timedelta."""
        if isinstance(value, timedelta):
            return value
        match = _AGE.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is not an age; write a number and s, m, h, d or w, such as 10m or 3d.", param, ctx)
        age = timedelta(**{_UNITS[match[2]]: int(match[1])})
        if age > _LONGEST:
            self.fail(f"{value!r} is more than a hundred years.", param, ctx)
        return age


class Text(click.ParamType[str]):
    """Type of a search text: one without characters that the database cannot store."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return `value`."""
        if not is_storable(value):
            self.fail("it contains characters that are not allowed.", param, ctx)
        return str(value)


def _user(_context: click.Context, _parameter: click.Parameter, name: str | None) -> User | None:
    user = User.with_username(name) if name is not None else None
    if name is not None and user is None:
        raise click.BadParameter(f"there is no user called {name!r}.")
    return user


_OPTIONS = [
    click.option(
        "--state",
        "selected_states",
        type=click.Choice(states.ALL, case_sensitive=False),
        shell_complete=completion.state_names,
        multiple=True,
        help="Only jobs in this state; may be given several times.",
    ),
    click.option(
        "--user", metavar="NAME", callback=_user, shell_complete=completion.usernames, help="Only jobs of this user."
    ),
    click.option(
        "--name",
        metavar="NAME",
        type=Text(),
        shell_complete=completion.registered,
        help="Only jobs with a task of this name, such as export_posts.",
    ),
    click.option(
        "--queue",
        metavar="NAME",
        type=Text(),
        shell_complete=completion.queues,
        help="Only jobs whose current step (of a successful job, the last one) is in this queue.",
    ),
    click.option(
        "--worker",
        metavar="NAME",
        type=Text(),
        shell_complete=completion.workers_of_jobs,
        help="Only jobs whose current step this worker runs or ran last.",
    ),
    click.option("--older-than", metavar="AGE", type=Age(), help="Only jobs older than this, such as 10m, 2h, 3d."),
    click.option("--newer-than", metavar="AGE", type=Age(), help="Only jobs newer than this."),
    click.option(
        "--error",
        metavar="TEXT",
        type=Text(),
        help="Only failed jobs with this text in their error or traceback, ignoring case. Without an index: "
        f"each page searches {MAX_SEARCHED} failed jobs that match the other filters, newest first.",
    ),
]


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select jobs to a command, which receives them as `filters`."""

    @wraps(command)
    def filtered(
        *args: Any,
        selected_states: tuple[str, ...],
        user: User | None,
        older_than: timedelta | None,
        newer_than: timedelta | None,
        name: str | None,
        queue: str | None,
        worker: str | None,
        error: str | None,
        **kwargs: Any,
    ) -> Any:
        filters = Filters(
            states=frozenset(selected_states),
            user_id=user.id if user else None,
            name=name,
            queue=queue,
            worker=worker,
            error=error,
            created_before=_ago(older_than),
            created_after=_ago(newer_than),
        )
        return command(*args, filters=filters, **kwargs)

    for option in reversed(_OPTIONS):
        filtered = option(filtered)
    return filtered


def _ago(age: timedelta | None) -> datetime | None:
    return utcnow() - age if age is not None else None
