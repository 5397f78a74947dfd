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
from microblog.monitoring.job_queries import LOOK_THROUGH
from microblog.taskqueue import states
from microblog.validators import is_storable

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(days=36500)
_AGE = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_SINCE = re.compile(r"(\d{1,6})\s*([smhdw])", re.I)


class Since(click.ParamType[datetime]):
    """A time in the past: an age such as ``24h``, or a date with or without a time, in UTC unless it says otherwise."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> datetime:
        """The time, aware."""
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
    """A length of time as an operator types it: ``45s``, ``10m``, ``2h``, ``3d``, ``1w``."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The length of time."""
        if isinstance(value, timedelta):
            return value
        match = _AGE.fullmatch(value)
        if match is None:
            self.fail(f"{value!r} is no age; write a number and s, m, h, d or w, such as 10m or 3d.", param, ctx)
        age = timedelta(**{_UNITS[match[2]]: int(match[1])})
        if age > _LONGEST:
            self.fail(f"{value!r} is more than a hundred years.", param, ctx)
        return age


class Text(click.ParamType[str]):
    """A text that can be looked for in the database."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text itself."""
        if not is_storable(value):
            self.fail("it has characters that no name can have.", param, ctx)
        return str(value)


def _user(_context: click.Context, _parameter: click.Parameter, name: str | None) -> User | None:
    user = User.with_username(name) if name is not None else None
    if name is not None and user is None:
        raise click.BadParameter(f"there is nobody called {name!r}.")
    return user


_OPTIONS = [
    click.option(
        "--state",
        "wanted_states",
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
        help="Only jobs whose current step is in this queue (the last, of one that succeeded).",
    ),
    click.option(
        "--worker",
        metavar="NAME",
        type=Text(),
        shell_complete=completion.workers_of_jobs,
        help="Only jobs whose current step this worker runs or ran last.",
    ),
    click.option("--older-than", metavar="AGE", type=Age(), help="Only jobs created longer ago, such as 10m, 2h, 3d."),
    click.option("--newer-than", metavar="AGE", type=Age(), help="Only jobs created since then."),
    click.option(
        "--error",
        metavar="TEXT",
        type=Text(),
        help="Only failed jobs with this in their error or traceback, in whatever case. It has no index: "
        f"the newest {LOOK_THROUGH} failed jobs that the other filters leave are looked through, a page.",
    ),
]


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which jobs are meant; it gets them as `filters`."""

    @wraps(command)
    def filtered(
        *args: Any,
        wanted_states: tuple[str, ...],
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
            states=frozenset(wanted_states),
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
