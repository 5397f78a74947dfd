"""Telling workers what to do; each worker's answer ends in a sentence that tells what became of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from microblog.monitoring import workers

# What Celery's control commands say when they refuse, as it is said here.
_REFUSALS = {
    "Autoscale not enabled": "was started without --autoscale=MAX,MIN, so its pool has a fixed size.",
    "unknown task": "knows no task of this name.",
    "pool_grow is not supported with autoscale. Adjust autoscale range instead.": "scales itself: set its range.",
    "pool_shrink is not supported with autoscale. Adjust autoscale range instead.": "scales itself: set its range.",
    "Can't shrink pool. All processes busy!": "has no process that is idle; none was ended.",
}


@dataclass(frozen=True)
class Said:
    """Whether a worker did what it was told, and what it said; `answered` is False if it said nothing."""

    worker: str
    done: bool
    sentence: str
    answered: bool = True


def tell(
    command: str, arguments: dict[str, Any], timeout: float, *, done: str, only: Collection[str] | None = None
) -> list[Said]:
    """Have all workers, or `only` some, carry out a remote control command; `done` is the sentence if they did.

    Returns what became of it at each worker that answered or should have within `timeout` seconds. One that did not
    will not do it later either. Raises redis.exceptions.RedisError or kombu.exceptions.OperationalError if Redis is
    away.
    """
    answers = workers.ask_about({command: arguments}, timeout, only)
    silent = f"does not answer within {timeout:g} s; it was not done."
    return sorted(
        [_said(name, said[command], done) for name, said in answers.up.items()]
        + [Said(name, False, silent, answered=False) for name in answers.silent],
        key=lambda said: said.worker,
    )


def _said(worker: str, reply: Any, done: str) -> Said:
    if isinstance(reply, dict) and "refused" in reply:
        return Said(worker, False, reply["refused"])
    if isinstance(reply, dict) and "error" in reply:
        return Said(worker, False, _REFUSALS.get(reply["error"], f"could not: {reply['error']}"))
    return Said(worker, True, done)
