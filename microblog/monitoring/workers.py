"""The workers: heartbeats, replies to queries, and commands.

Celery knows only workers that reply. To name one that does not, Redis keeps when each was last seen: every worker
registers every few seconds and removes itself when it stops. One that was killed or is frozen stays listed for
``WORKER_FORGOTTEN_AFTER`` seconds.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from celery import bootsteps
from flask import current_app

from microblog.clock import utcnow
from microblog.extensions import redis_client
from microblog.monitoring.worker_rpc import Questions, broadcast_and_collect

logger = logging.getLogger(__name__)

SIGN_IN_EVERY = 5.0  # seconds
WORKERS_KEY = "microblog:workers"  # a sorted set: names, by when they were last seen


def registered_workers() -> dict[str, datetime]:
    """The workers that should answer, each with when it was last seen. Raises redis.exceptions.RedisError."""
    forgotten = utcnow() - timedelta(seconds=current_app.config["WORKER_FORGOTTEN_AFTER"])
    seen: Any = redis_client.connection.zrangebyscore(WORKERS_KEY, forgotten.timestamp(), "+inf", withscores=True)
    return {str(name): datetime.fromtimestamp(float(at), UTC) for name, at in seen}


class Presence(bootsteps.StartStopStep):
    """The part of a worker that signs in: as soon as its main loop runs, and every few seconds from then on."""

    requires = ("celery.worker.consumer.control:Control",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._entries: list[Any] = []

    def start(self, consumer: Any) -> None:
        """Begin to sign in; on every connection to the broker anew."""
        timer = consumer.timer
        self._entries = [
            timer.call_after(0, self._sign_in, (consumer,)),  # by then it hears what it is asked
            timer.call_repeatedly(SIGN_IN_EVERY, self._sign_in, (consumer,)),
        ]

    def stop(self, consumer: Any) -> None:
        """Sign in no more; and sign out, if it is not only the connection that ends."""
        for entry in self._entries:
            entry.cancel()
        self._entries = []
        if consumer.blueprint.state != bootsteps.RUN:
            self._sign_out(consumer)

    def _sign_in(self, consumer: Any) -> None:
        flask_app = consumer.app.flask_app
        now = utcnow().timestamp()
        try:
            with flask_app.extensions["redis"].pipeline() as pipe:
                pipe.zadd(WORKERS_KEY, {consumer.hostname: now})
                pipe.zremrangebyscore(WORKERS_KEY, "-inf", now - flask_app.config["WORKER_FORGOTTEN_AFTER"])
                pipe.execute()
        except redis.RedisError as error:
            logger.warning("this worker could not sign in: %s", error)

    def _sign_out(self, consumer: Any) -> None:
        try:
            consumer.app.flask_app.extensions["redis"].zrem(WORKERS_KEY, consumer.hostname)
        except redis.RedisError as error:
            logger.warning("this worker could not sign out: %s", error)


Facts = dict[str, Any]

LIMITS = ("rate_limit", "soft_time_limit", "time_limit")
REGISTERED: Questions = {"registered": {"taskinfoitems": LIMITS}}

_PASSWORD = re.compile(r"(\w://[^/@\s:]*):[^/@\s]*@")  # of a URL
_SECRET = re.compile(r"SECRET|PASS|TOKEN|(?<!ROUTING_)KEY$|SIGNATURE|CREDENTIAL", re.IGNORECASE)
_MASK = "********"
_LISTS = {"active", "reserved", "scheduled", "revoked", "registered", "queues"}
_MAPPINGS = {"stats", "conf"}


@dataclass(frozen=True)
class WorkerSummary:
    """General properties of a worker: memory in bytes, uptime in seconds.

    All but `name`, `up` and `last_seen` is None if the worker did not reply, or was not asked. `memory` is the maximum
    of its main process; `processed` counts the messages that it took since it was started.
    """

    name: str
    up: bool
    last_seen: datetime | None
    pid: int | None
    pool: str | None
    concurrency: int | None
    autoscale: Facts | None
    prefetch: int | None
    processed: int | None
    memory: int | None
    uptime: float | None
    running: int | None
    queues: list[str] | None


@dataclass(frozen=True)
class WorkerReplies:
    """Replies of the workers that are `up`: by name, the reply to each command.

    `silent` are those that did not reply, though they should: they are frozen, cut off, overloaded, or were killed.
    """

    up: dict[str, Facts]
    silent: list[str]
    last_seen: dict[str, datetime]

    def summary(self, name: str) -> WorkerSummary:
        """Return the general properties of the worker `name`."""
        reply = self.up.get(name, {})
        stats = reply.get("stats", {})
        pool = stats.get("pool", {})
        processes = pool.get("processes")  # unlike max-concurrency, it follows the commands to grow and to shrink
        return WorkerSummary(
            name=name,
            up=name in self.up,
            last_seen=self.last_seen.get(name),
            pid=stats.get("pid"),
            pool=pool.get("implementation", "").split(":")[0].rpartition(".")[2] or None,
            concurrency=pool.get("max-concurrency") if processes is None else len(processes),
            autoscale=stats.get("autoscaler"),
            prefetch=stats.get("prefetch_count"),
            processed=sum(stats["total"].values()) if "total" in stats else None,
            memory=stats["rusage"]["maxrss"] * 1024 if isinstance(stats.get("rusage"), dict) else None,
            uptime=stats.get("uptime"),
            running=len(reply["active"]) if "active" in reply else None,
            queues=reply.get("queues"),
        )

    def summaries(self) -> list[WorkerSummary]:
        """Return the general properties of all workers by name, of the silent ones too."""
        return [self.summary(name) for name in sorted([*self.up, *self.silent])]


def query_workers(timeout: float) -> WorkerReplies:
    """Ask all workers how they are; returns once all that are known have answered, else after `timeout` seconds.

    Of each worker that is up: `stats` as Celery's, `active`, the tasks that it runs, and `queues`, the names of those
    that it consumes. Raises redis.exceptions.RedisError or kombu.exceptions.OperationalError if Redis is away.
    """
    return query_workers_about({"stats": {}, "active": {}, "active_queues": {}}, timeout)


def query_workers_about(questions: Questions, timeout: float, only: Collection[str] | None = None) -> WorkerReplies:
    """As ask(), but about something else: Celery's remote control commands, each with its arguments.

    With `only`, these workers alone are asked, whether they are known or not.
    """
    seen = registered_workers()
    expected = seen.keys() if only is None else only
    said = broadcast_and_collect(questions, timeout, expected=expected, only=only)
    return WorkerReplies(
        up={name: _named(said[name]) for name in sorted(said)},
        silent=sorted(set(expected) - said.keys()),
        last_seen=seen,
    )


def all_questions() -> Questions:
    """The questions whose answers are all that a worker knows of itself."""
    names = ("stats", "conf", "active", "reserved", "scheduled", "revoked", "active_queues")
    return {**{name: {} for name in names}, **REGISTERED}


def worker_tasks(answers: WorkerReplies, question: str) -> list[Facts]:
    """The tasks in the workers' answers about `active`, `reserved` or `scheduled`, those that began first, first."""
    found = [_task(name, task) for name, said in answers.up.items() for task in said[question]]
    return sorted(found, key=lambda task: (task["eta"] or "", task["started_at"] or datetime.max.replace(tzinfo=UTC)))


def registered_tasks(answers: WorkerReplies) -> list[Facts]:
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
    """Return a worker's replies by the names used here, with empty values for failed commands."""
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


# What Celery's control commands say when they refuse, as it is said here.
_REFUSALS = {
    "Autoscale not enabled": "was started without --autoscale=MAX,MIN, so its pool has a fixed size.",
    "unknown task": "knows no task of this name.",
    "pool_grow is not supported with autoscale. Adjust autoscale range instead.": "scales itself: set its range.",
    "pool_shrink is not supported with autoscale. Adjust autoscale range instead.": "scales itself: set its range.",
    "Can't shrink pool. All processes busy!": "has no process that is idle; none was ended.",
}


@dataclass(frozen=True)
class CommandReply:
    """Outcome of a command at a worker; `answered` is False if the worker did not reply."""

    worker: str
    done: bool
    sentence: str
    answered: bool = True


def send_command(
    command: str, arguments: dict[str, Any], timeout: float, *, done: str, only: Collection[str] | None = None
) -> list[CommandReply]:
    """Have all workers, or `only` some, carry out a remote control command; `done` is the sentence if they did.

    Returns what became of it at each worker that answered or should have within `timeout` seconds. One that did not
    will not do it later either. Raises redis.exceptions.RedisError or kombu.exceptions.OperationalError if Redis is
    away.
    """
    answers = query_workers_about({command: arguments}, timeout, only)
    silent = f"does not answer within {timeout:g} s; it was not done."
    return sorted(
        [_said(name, said[command], done) for name, said in answers.up.items()]
        + [CommandReply(name, False, silent, answered=False) for name in answers.silent],
        key=lambda said: said.worker,
    )


def _said(worker: str, reply: Any, done: str) -> CommandReply:
    if isinstance(reply, dict) and "refused" in reply:
        return CommandReply(worker, False, reply["refused"])
    if isinstance(reply, dict) and "error" in reply:
        return CommandReply(worker, False, _REFUSALS.get(reply["error"], f"could not: {reply['error']}"))
    return CommandReply(worker, True, done)
