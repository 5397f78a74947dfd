"""Helpers shared by ``flask users``, ``flask search`` and ``flask tasks``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, TypeVar

import click
import orjson
from flask.cli import AppGroup
from sqlalchemy.exc import DBAPIError

from microblog.database import DatabaseUnavailable

EXIT_UNAVAILABLE = 3  # exit code if a required service is unavailable; click uses 2 for usage errors

_T = TypeVar("_T")
_JSON_REQUESTED = "microblog.json_requested"  # key in the metadata of click's context


def _store_json_requested(context: click.Context, _parameter: click.Parameter, requested: bool) -> None:
    if requested:  # the metadata is shared with subcommands, so that the option of a group applies to them
        context.meta[_JSON_REQUESTED] = True


json_flag = partial(click.option, "--json", is_flag=True, expose_value=False, callback=_store_json_requested)
json_option = json_flag(help="Print JSON, and nothing else.")


class Commands(AppGroup):
    """A command group that reports an unavailable database in one message on stderr."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except DBAPIError as error:
            if not isinstance(error, DatabaseUnavailable):
                exit_unavailable(context, f"The database rejects the command; is it migrated? {error.orig}")
            exit_unavailable(context, f"The database is unavailable: {error.orig}")


def exit_unavailable(context: click.Context, message: str) -> NoReturn:
    """Print `message` on stderr and exit with ``EXIT_UNAVAILABLE``."""
    click.echo(message, err=True)
    context.exit(EXIT_UNAVAILABLE)


def json_requested() -> bool:
    """Return whether the current command, or the group that it belongs to, was given --json."""
    return bool(click.get_current_context().meta.get(_JSON_REQUESTED))


def print_output(
    value: _T | None, show: Callable[[_T], object], *, to_json: Callable[[_T], Any] | None = None, empty: str = ""
) -> None:
    """Print the result of a command: with --json as JSON, otherwise by calling `show`.

    `to_json` converts it unless it is None. Of an empty result, only `empty` is shown, on stderr.
    """
    if json_requested():
        print_json(to_json(value) if to_json and value is not None else value)
    elif value:
        show(value)
    elif empty:
        click.echo(empty, err=True)


def print_json(value: Any) -> None:
    """Print `value` as JSON, with times in ISO 8601 ending in Z."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))
