"""What a shell offers where a worker, a queue or a task is to be named."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem
from flask import current_app
from flask.cli import ScriptInfo
from redis.exceptions import RedisError

from microblog.monitoring import by_hand, presence
from microblog.monitoring import queues as all_queues

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _offers(names: Callable[[], Iterable[str]]) -> Complete:
    """Completes to those of `names` that begin as what was typed; to none while Redis is away."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with context.ensure_object(ScriptInfo).load_app().app_context():
            try:
                return [CompletionItem(name) for name in names() if name.startswith(incomplete)]
            except RedisError:
                return []

    return complete


workers = _offers(lambda: sorted(presence.known()))
queues = _offers(lambda: all_queues.known())
runnable = _offers(lambda: by_hand.runnable())
registered = _offers(
    lambda: sorted(name for name in current_app.extensions["celery"].tasks if not name.startswith("celery."))
)
