"""The workers: who is up, what each is and does, and who should be up and does not answer."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from microblog.monitoring import presence
from microblog.monitoring.asking import Questions, ask_workers

Facts = dict[str, Any]

_PASSWORD = re.compile(r"(\w://[^/@\s:]*):[^/@\s]*@")  # of a URL
_SECRET = re.compile(r"SECRET|PASS|TOKEN|(?<!ROUTING_)KEY$|SIGNATURE|CREDENTIAL", re.IGNORECASE)
_MASK = "********"


@dataclass(frozen=True)
class Answers:
    """What the workers said: of each that is `up`, by its name, what it said to each question.

    `silent` are those that did not answer, though they should: they are frozen, cut off, overloaded, or were killed.
    """

    up: dict[str, Facts]
    silent: list[str]
    last_seen: dict[str, datetime]


def ask(timeout: float) -> Answers:
    """Ask all workers how they are; returns once all that are known have answered, else after `timeout` seconds.

    Of each worker that is up: `stats` as Celery's, `active`, the tasks that it runs, and `queues`, the names of those
    that it consumes. Raises redis.exceptions.RedisError or kombu.exceptions.OperationalError if Redis is away.
    """
    return ask_about({"stats": {}, "active": {}, "active_queues": {}}, timeout)


def ask_about(questions: Questions, timeout: float, only: Collection[str] | None = None) -> Answers:
    """As ask(), but about something else: Celery's remote control commands, each with its arguments.

    With `only`, these workers alone are asked, whether they are known or not.
    """
    seen = presence.known()
    expected = seen.keys() if only is None else only
    said = ask_workers(questions, timeout, expected=expected, only=only)
    return Answers(
        up={name: _named(said[name]) for name in sorted(said)},
        silent=sorted(set(expected) - said.keys()),
        last_seen=seen,
    )


def everything() -> Questions:
    """The questions whose answers are all that a worker knows of itself."""
    lists = ("active", "reserved", "scheduled", "revoked", "registered", "active_queues")
    return {"stats": {}, "conf": {"with_defaults": False}} | {name: {} for name in lists}


def _named(said: Facts) -> Facts:
    facts = {("queues" if question == "active_queues" else question): reply for question, reply in said.items()}
    if isinstance(facts.get("queues"), list):
        facts["queues"] = sorted(queue["name"] for queue in facts["queues"])
    return dict(_masked(facts))


def _masked(value: Any, name: str = "") -> Any:
    """`value` without passwords; Celery masks most of its settings itself, but not those inside of URLs."""
    if isinstance(value, dict):
        return {key: _masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    if isinstance(value, str):
        return _MASK if value and _SECRET.search(name) else _PASSWORD.sub(rf"\1:{_MASK}@", value)
    return value
