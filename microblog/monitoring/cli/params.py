"""Parameter types for ages and times (``90m``, ``24h``, ``7d``), and the options that select jobs."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import click

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.monitoring.cli import completion
from microblog.monitoring.filters import Filters
from microblog.monitoring.job_queries import MAX_SEARCHED
from microblog.taskqueue import states
from microblog.validators import is_storable

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
