"""Helpers shared by ``flask users``, ``flask search`` and ``flask tasks``."""

from __future__ import annotations

from typing import Any, NoReturn

import click
import orjson
from flask.cli import AppGroup
from sqlalchemy.exc import DBAPIError

from microblog.database import DatabaseUnavailable

EXIT_UNAVAILABLE = 3  # exit code if a required service is unavailable; click uses 2 for usage errors

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")


class Commands(AppGroup):
    """A command group that reports an unavailable database in one sentence on stderr."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except DBAPIError as error:
            if not isinstance(error, DatabaseUnavailable):
                exit_unavailable(context, f"The database rejects the command; is it migrated? {error.orig}")
            exit_unavailable(context, f"The database is unavailable: {error.orig}")


def exit_unavailable(context: click.Context, sentence: str) -> NoReturn:
    """Print `sentence` on stderr and exit with ``EXIT_UNAVAILABLE``."""
    click.echo(sentence, err=True)
    context.exit(EXIT_UNAVAILABLE)


def print_json(value: Any) -> None:
    """Print `value` as JSON, with times in ISO 8601 ending in Z."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z))
