"""The workers: heartbeats, replies to queries, and commands.

Celery knows only workers that reply. To name one that does not, Redis stores when each was last seen: every worker
registers every few seconds and removes itself when it stops. One that was killed or is frozen stays listed for
``WORKER_FORGOTTEN_AFTER`` seconds.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis
from celery import bootsteps
from flask import current_app

from microblog.extensions import SiteRedis, redis_client
from microblog.monitoring.worker_rpc import Commands, broadcast_and_collect
from microblog.taskqueue.interface import celery_app

logger = logging.getLogger(__name__)

HEARTBEAT_INTERVAL = 5.0  # seconds
WORKERS_KEY = "workers"  # a sorted set: worker names by the time at which they were last seen


def registered_workers() -> dict[str, datetime]:
    """Return the workers that should reply, each with the time it was last seen. Raises redis.exceptions.RedisError."""
    client = redis_client.connection
    expired = client.now() - current_app.config["WORKER_FORGOTTEN_AFTER"]
    seen: Any = client.zrangebyscore(client.key(WORKERS_KEY), expired, "+inf", withscores=True)
    return {str(name): datetime.fromtimestamp(float(at), UTC) for name, at in seen}


class HeartbeatStep(bootsteps.StartStopStep):
    """Consumer step that registers the worker as soon as its main loop runs, and every few seconds after that."""

    requires = ("celery.worker.consumer.control:Control",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._entries: list[Any] = []

    def start(self, consumer: Any) -> None:
        """Start registering; called for each new connection to the broker."""
        timer = consumer.timer
        self._entries = [
            timer.call_after(0, self._register, (consumer,)),  # by then the worker receives commands
            timer.call_repeatedly(HEARTBEAT_INTERVAL, self._register, (consumer,)),
        ]

    def stop(self, consumer: Any) -> None:
        """Stop registering; remove the worker unless only its connection ends."""
        for entry in self._entries:
            entry.cancel()
        self._entries = []
        if consumer.blueprint.state != bootsteps.RUN:
            self._unregister(consumer)

    def _register(self, consumer: Any) -> None:
        flask_app = consumer.app.flask_app
        try:
            client: SiteRedis = flask_app.extensions["redis"]
            now = client.now()
            with client.pipeline() as pipe:
                pipe.zadd(client.key(WORKERS_KEY), {consumer.hostname: now})
                pipe.zremrangebyscore(client.key(WORKERS_KEY), "-inf", now - flask_app.config["WORKER_FORGOTTEN_AFTER"])
                pipe.execute()
        except redis.RedisError as error:
            logger.warning("Redis is unavailable; this worker is registered later: %s", error)

    def _unregister(self, consumer: Any) -> None:
        try:
            client: SiteRedis = consumer.app.flask_app.extensions["redis"]
            client.zrem(client.key(WORKERS_KEY), consumer.hostname)
        except redis.RedisError as error:
            logger.warning("Redis is unavailable; this worker stays registered until its entry expires: %s", error)


Fields = dict[str, Any]

LIMITS = ("rate_limit", "soft_time_limit", "time_limit")
REGISTERED: Commands = {"registered": {"taskinfoitems": LIMITS}}

_PASSWORD = re.compile(r"(\w://[^/@\s:]*):[^/@\s]*@")  # of a URL
_SECRET = re.compile(r"SECRET|PASS|TOKEN|(?<!ROUTING_)KEY$|SIGNATURE|CREDENTIAL", re.IGNORECASE)
_MASK = "********"
_LISTS = {"active", "reserved", "scheduled", "revoked", "registered", "queues"}
_MAPPINGS = {"stats", "conf"}


@dataclass(frozen=True)
class WorkerSummary:
    """General properties of a worker: memory in bytes, uptime in seconds.

    All but `name`, `up` and `last_seen` are None if the worker did not reply or was not queried. `memory` is the
    maximum of its main process; `processed` is the number of messages that it has taken since its start.
    """

    name: str
    up: bool
    last_seen: datetime | None
    pid: int | None
    pool: str | None
    concurrency: int | None
    autoscale: Fields | None
    prefetch: int | None
    processed: int | None
    memory: int | None
    uptime: float | None
    running: int | None
    queues: list[str] | None


@dataclass(frozen=True)
class WorkerReplies:
    """Replies of the workers that are `up`: by name, the reply to each command.

    `silent` are those that should have replied and did not: they are frozen, disconnected, overloaded, or were killed.
    """

    up: dict[str, Fields]
    silent: list[str]
    last_seen: dict[str, datetime]

    def summary(self, name: str) -> WorkerSummary:
        """Return the general properties of the worker `name`."""
        reply = self.up.get(name, {})
        stats = reply.get("stats", {})
        pool = stats.get("pool", {})
        processes = pool.get("processes")  # unlike max-concurrency, it reflects pool_grow and pool_shrink
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


def query_workers(timeout: float, others: Commands | None = None) -> WorkerReplies:
    """Query the state of all workers; returns once all registered workers have replied, or after `timeout` seconds.

    The reply of a worker contains Celery's `stats`, `active`, the tasks that it runs, `queues`, the names of the queues
    that it consumes, and the replies to `others`. Raises redis.exceptions.RedisError or
    kombu.exceptions.OperationalError if Redis is unavailable.
    """
    return query_workers_with({"stats": {}, "active": {}, "active_queues": {}, **(others or {})}, timeout)


def query_workers_with(commands: Commands, timeout: float, only: Collection[str] | None = None) -> WorkerReplies:
    """As query_workers(), but with other remote control commands of Celery, each with its arguments.

    With `only`, just these workers are queried, whether they are registered or not.
    """
    seen = registered_workers()
    expected = seen.keys() if only is None else only
    replies = broadcast_and_collect(commands, timeout, expected=expected, only=only)
    return WorkerReplies(
        up={name: _normalize_reply(replies[name]) for name in sorted(replies)},
        silent=sorted(set(expected) - replies.keys()),
        last_seen=seen,
    )


def all_commands() -> Commands:
    """Return the commands whose replies contain everything that a worker reports about itself."""
    names = ("stats", "conf", "active", "reserved", "scheduled", "revoked", "active_queues")
    return {**{name: {} for name in names}, **REGISTERED}


def worker_tasks(replies: WorkerReplies, query: str) -> list[Fields]:
    """Return the tasks in the replies to `active`, `reserved` or `scheduled`, sorted by ETA, then by start time."""
    found = [_task(name, task) for name, reply in replies.up.items() for task in reply[query]]
    return sorted(found, key=lambda task: (task["eta"] or "", task["started_at"] or datetime.max.replace(tzinfo=UTC)))


def registered_tasks(replies: WorkerReplies) -> list[Fields]:
    """Return the tasks in the replies to REGISTERED, sorted by name, with their limits and the workers that have them.

    A task that has different limits in different workers is returned once for each. Time limits are in seconds; None is
    no limit.
    """
    workers: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name, reply in replies.up.items():
        for task in reply["registered"]:
            workers[task["name"], *(task[limit] for limit in LIMITS)].append(name)
    keys = sorted(workers, key=lambda key: [str(value or "") for value in key])
    return [dict(zip(("name", *LIMITS), key, strict=True)) | {"workers": workers[key]} for key in keys]


def unknown_tasks(replies: WorkerReplies) -> dict[str, list[str]]:
    """Return the tasks of this release that workers do not know, by worker, without workers that know all."""
    needed = {name for name in celery_app().tasks if not name.startswith("celery.")}
    known = {name: {task["name"] for task in reply["registered"]} for name, reply in replies.up.items()}
    return {name: sorted(needed - tasks) for name, tasks in known.items() if tasks and needed - tasks}


def changed_rate_limits(replies: WorkerReplies) -> dict[str, dict[str, str]]:
    """Return the rate limits that operators have set, by worker and task."""
    usual = {name: task.rate_limit for name, task in celery_app().tasks.items()}
    return {
        name: {
            task["name"]: task["rate_limit"]
            for task in reply["registered"]
            if task["rate_limit"] not in (None, "0", usual.get(task["name"]))
        }
        for name, reply in replies.up.items()
    }


def _task(worker: str, info: Fields) -> Fields:
    request = info.get("request", info)
    started = request.get("time_start")
    return {
        "id": request["id"],
        "name": request["name"],
        "worker": worker,
        "args": request["args"],
        "kwargs": _masked(request["kwargs"]),
        "started_at": datetime.fromtimestamp(started, UTC) if started else None,
        "eta": info.get("eta"),
        "pid": request.get("worker_pid"),
    }


def _normalize_reply(replies: Fields) -> Fields:
    """Return a worker's replies by the names used here, with empty values for failed commands."""
    named = {("queues" if name == "active_queues" else name): value for name, value in replies.items()}
    named |= {key: [] for key in named.keys() & _LISTS if not isinstance(named[key], list)}
    named |= {key: {} for key in named.keys() & _MAPPINGS if "error" in named[key]}
    if "registered" in named:
        named["registered"] = [_parse_registered(task) for task in named["registered"]]
    if "queues" in named:
        named["queues"] = sorted(queue["name"] for queue in named["queues"])
    return dict(_masked(named))


def _parse_registered(text: str) -> Fields:
    """Parse a task as a worker describes it: ``name [rate_limit=10/m time_limit=60]``."""
    name, _, described = text.rstrip("]").partition(" [")
    limits: dict[str, Any] = dict(limit.split("=", 1) for limit in described.split())
    seconds = {limit: float(limits[limit]) for limit in limits.keys() & {"soft_time_limit", "time_limit"}}
    return {"name": name} | dict.fromkeys(LIMITS) | limits | seconds


def _masked(value: Any, name: str = "") -> Any:
    """Return `value` without passwords; Celery masks most of its settings itself, but not passwords in URLs."""
    if isinstance(value, dict):
        return {key: _masked(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    if isinstance(value, str):
        return _MASK if value and _SECRET.search(name) else _PASSWORD.sub(rf"\1:{_MASK}@", value)
    return value


# Refusals of Celery's control commands, and the messages shown in their place.
_REFUSALS = {
    "Autoscale not enabled": "was started without --autoscale=MAX,MIN, so its pool has a fixed size.",
    "unknown task": "has no task of this name.",
    "pool_grow is not supported with autoscale. Adjust autoscale range instead.": "autoscales; change its range.",
    "pool_shrink is not supported with autoscale. Adjust autoscale range instead.": "autoscales; change its range.",
    "Can't shrink pool. All processes busy!": "has no idle process; none was ended.",
}


@dataclass(frozen=True)
class CommandReply:
    """Outcome of a command at a worker; `replied` is False if the worker did not reply."""

    worker: str
    done: bool
    message: str
    replied: bool = True


def send_command(
    command: str, arguments: dict[str, Any], timeout: float, *, done: str, only: Collection[str] | None = None
) -> list[CommandReply]:
    """Send a remote control command to all workers, or to those in `only`; `done` is the message for success.

    Returns the outcome at each worker that replied, or should have replied, within `timeout` seconds. A worker that did
    not reply does not run the command later either. Raises redis.exceptions.RedisError or
    kombu.exceptions.OperationalError if Redis is unavailable.
    """
    replies = query_workers_with({command: arguments}, timeout, only)
    silent = f"did not reply within {timeout:g} s; the command was not run."
    return sorted(
        [_command_reply(name, reply[command], done) for name, reply in replies.up.items()]
        + [CommandReply(name, False, silent, replied=False) for name in replies.silent],
        key=lambda outcome: outcome.worker,
    )


def _command_reply(worker: str, reply: Any, done: str) -> CommandReply:
    if isinstance(reply, dict) and "refused" in reply:
        return CommandReply(worker, False, reply["refused"])
    if isinstance(reply, dict) and "error" in reply:
        return CommandReply(worker, False, _REFUSALS.get(reply["error"], f"failed: {reply['error']}"))
    return CommandReply(worker, True, done)
