"""``flask tasks``: see and steer the jobs of all users, from a terminal or a script.

Exit codes: 0 done; 1 nothing to do, or the job is not in a state for it; 2 called wrongly, or there is no
such job; 3 the database, Redis or every worker is away.
"""

from __future__ import annotations

from typing import Any, NoReturn

import click
from celery.exceptions import BackendStoreError
from flask.cli import AppGroup
from kombu.exceptions import OperationalError as BrokerAway
from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError

NOTHING_DONE, WRONG, AWAY = 1, 2, 3  # exit codes; 2 is also click's own for a wrong call


class Operators(AppGroup):
    """Commands that say in one sentence, on stderr, that the database or Redis is away."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except (OperationalError, InterfaceError) as error:
            _away(context, f"The database does not answer as it should: {error.orig}")
        except (RedisError, BrokerAway, BackendStoreError) as error:
            _away(context, f"Redis does not answer as it should: {error}")


def _away(context: click.Context, sentence: str) -> NoReturn:
    click.echo(sentence, err=True)
    context.exit(AWAY)


HELP = """See and steer the jobs of all users.

\b
Each command has --help with an example, and --json. For completion by the shell (bash; zsh and fish likewise):
  eval "$(_FLASK_COMPLETE=bash_source flask)"
"""

tasks = Operators("tasks", help=HELP, short_help="See and steer the jobs of all users.")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
worker_timeout = click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="How long workers have to answer.",
)
task_ids = click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
