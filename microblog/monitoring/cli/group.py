"""``flask tasks``: see and steer the jobs of all users, from a terminal or a script.

Exit codes: 0 done; 1 nothing to do, or the job is not in a state for it; 2 called wrongly, or there is no
such job; 3 the database, Redis or every worker is away.
"""

from __future__ import annotations

from typing import Any

import click
from celery.exceptions import BackendStoreError
from kombu.exceptions import OperationalError as BrokerAway
from redis.exceptions import RedisError

from microblog.commands import Commands, end_away

NOTHING_DONE, WRONG = 1, 2  # exit codes; 2 is also click's own for a wrong call


class Operators(Commands):
    """Commands that say in one sentence, on stderr, that the database or Redis is away."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except (RedisError, BrokerAway, BackendStoreError) as error:
            end_away(context, f"Redis does not answer as it should: {error}")


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
