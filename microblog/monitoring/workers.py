"""The workers: who is up, what each is and does, and who should be up and does not answer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from microblog.monitoring import presence
from microblog.monitoring.asking import Questions, ask_workers

Facts = dict[str, Any]

LIMITS = ("rate_limit", "soft_time_limit", "time_limit")
REGISTERED: Questions = {"registered": {"taskinfoitems": LIMITS}}

_PASSWORD = re.compile(r"(\w://[^/@\s:]*):[^/@\s]*@")  # of a URL
_SECRET = re.compile(r"SECRET|PASS|TOKEN|(?<!ROUTING_)KEY$|SIGNATURE|CREDENTIAL", re.IGNORECASE)
_MASK = "********"
_LISTS = {"active", "reserved", "scheduled", "revoked", "registered", "queues"}
_MAPPINGS = {"stats", "conf"}


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
    names = ("stats", "conf", "active", "reserved", "scheduled", "revoked", "active_queues")
    return {**{name: {} for name in names}, **REGISTERED}


def describe(name: str, answers: Answers) -> Facts:
    """What is known of a worker in general, for people and programs: memory in bytes, uptime in seconds.

    All but `name`, `up` and `last_seen` is None if it does not answer, or was not asked. `memory` is the most that its
    main process ever had; `processed` counts the messages that it took since it was started.
    """
    said = answers.up.get(name, {})
    stats = said.get("stats", {})
    pool = stats.get("pool", {})
    processes = pool.get("processes")
    return {
        "name": name,
        "up": name in answers.up,
        "last_seen": answers.last_seen.get(name),
        "pid": stats.get("pid"),
        "pool": pool.get("implementation", "").split(":")[0].rpartition(".")[2] or None,
        "concurrency": pool.get("max-concurrency") if processes is None else len(processes),
        "autoscale": stats.get("autoscaler"),
        "prefetch": stats.get("prefetch_count"),
        "processed": sum(stats["total"].values()) if "total" in stats else None,
        "memory": stats["rusage"]["maxrss"] * 1024 if isinstance(stats.get("rusage"), dict) else None,
        "uptime": stats.get("uptime"),
        "running": len(said["active"]) if "active" in said else None,
        "queues": said.get("queues"),
    }


def tasks(answers: Answers, question: str) -> list[Facts]:
    """The tasks in the workers' answers about `active`, `reserved` or `scheduled`, those that began first, first."""
    found = [_task(name, task) for name, said in answers.up.items() for task in said[question]]
    return sorted(found, key=lambda task: (task["eta"] or "", task["started_at"] or datetime.max.replace(tzinfo=UTC)))


def registered(answers: Answers) -> list[Facts]:
    """The tasks in the workers' answers to REGISTERED, by name, with their limits and the workers that know them so.

    Time limits are in seconds; those that have none are None.
    """
    knowing: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name, said in answers.up.items():
        for task in said["registered"]:
            knowing[task["name"], *(task[limit] for limit in LIMITS)].append(name)
    kinds = sorted(knowing, key=lambda kind: [str(value or "") for value in kind])
    return [dict(zip(("name", *LIMITS), kind, strict=True)) | {"workers": knowing[kind]} for kind in kinds]


def _task(worker: str, said: Facts) -> Facts:
    request = said.get("request", said)
    started = request.get("time_start")
    return {
        "id": request["id"],
        "name": request["name"],
        "worker": worker,
        "args": request["args"],
        "kwargs": _masked(request["kwargs"]),
        "started_at": datetime.fromtimestamp(started, UTC) if started else None,
        "eta": said.get("eta"),
        "pid": request.get("worker_pid"),
    }


def _named(said: Facts) -> Facts:
    """What a worker said, by the names used here; in place of what it could not say there is nothing."""
    facts = {("queues" if question == "active_queues" else question): reply for question, reply in said.items()}
    facts |= {key: [] for key in facts.keys() & _LISTS if not isinstance(facts[key], list)}
    facts |= {key: {} for key in facts.keys() & _MAPPINGS if "error" in facts[key]}
    if "registered" in facts:
        facts["registered"] = [_registered(task) for task in facts["registered"]]
    if "queues" in facts:
        facts["queues"] = sorted(queue["name"] for queue in facts["queues"])
    return dict(_masked(facts))


def _registered(said: str) -> Facts:
    """A task as a worker describes it: ``name [rate_limit=10/m time_limit=60]``."""
    name, _, described = said.rstrip("]").partition(" [")
    limits: dict[str, Any] = dict(limit.split("=", 1) for limit in described.split())
    seconds = {limit: float(limits[limit]) for limit in limits.keys() & {"soft_time_limit", "time_limit"}}
    return {"name": name} | dict.fromkeys(LIMITS) | limits | seconds


def _masked(value: Any, name: str = "") -> Any:
    """`value` without passwords; Celery masks most of its settings itself, but not those inside of URLs."""
    if isinstance(value, dict):
        return {key: _masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    if isinstance(value, str):
        return _MASK if value and _SECRET.search(name) else _PASSWORD.sub(rf"\1:{_MASK}@", value)
    return value
