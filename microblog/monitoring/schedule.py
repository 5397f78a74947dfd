"""The schedule of beat: when each periodic task was sent, and when it last ran.

Beat stores when it has sent a task. Since a message may wait, or be lost, workers store when a run has ended.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from celery import schedules, signals
from flask import Flask
from redbeat.schedulers import RedBeatConfig, RedBeatSchedulerEntry

from microblog.extensions import SiteRedis, redis_client
from microblog.taskqueue import states
from microblog.taskqueue.interface import celery_app

logger = logging.getLogger(__name__)

RUNS_KEY = "periodic-runs"  # a hash: task name to the seconds since 1970 at which it last succeeded
GRACE = timedelta(minutes=1)  # after its interval, until a task that has not run is overdue


@dataclass(frozen=True)
class ScheduleEntry:
    """An entry of the schedule.

    `every` is the interval in seconds, None if it is not fixed. `last_sent_at` and `next_run_at`, when beat will send
    it, are in the time of beat's machine, and None before the first time. `last_run_at` is the time of Redis at which
    it last succeeded, None if that is unknown. `overdue` tells that this was too long ago.
    """

    name: str
    task: str
    every: float | None
    last_sent_at: datetime | None = None
    next_run_at: datetime | None = None
    last_run_at: datetime | None = None
    overdue: bool = False


def schedule_entries() -> list[ScheduleEntry]:
    """Return the entries of the settings, as beat has stored them. Raises redis.exceptions.RedisError."""
    app, client = celery_app(), redis_client.connection
    app.redbeat_conf = config = RedBeatConfig(app)
    with client.pipeline(transaction=False) as pipe:
        pipe.hgetall(client.key(RUNS_KEY))
        for name in app.conf.beat_schedule:
            pipe.hmget(config.key_prefix + name, "definition", "meta")
        runs, *stored = pipe.execute()
    entries = [_entry(app, name, *values) for name, values in zip(app.conf.beat_schedule, stored, strict=True)]
    now = client.now()
    return [_with_run(entry, runs.get(entry.task), now) for entry in entries]


def is_beat_running() -> bool:
    """Return whether a beat holds the schedule's lock. Raises redis.exceptions.RedisError."""
    config = RedBeatConfig(celery_app())
    return bool(redis_client.connection.exists(config.lock_key))


def init_app(app: Flask) -> None:
    """Store when periodic tasks have succeeded."""

    def store_run(sender: Any, state: str, **_: Any) -> None:
        own = sender.app is app.extensions["celery"]
        if own and getattr(sender, "interval_setting", None) and state == states.SUCCESS:
            client: SiteRedis = app.extensions["redis"]
            try:
                client.hset(client.key(RUNS_KEY), sender.name, str(client.now()))
            except redis.RedisError as error:
                logger.warning("Redis is unavailable; this run of %s is not recorded: %s", sender.name, error)

    app.extensions["store_periodic_run"] = store_run  # signals keep only weak references
    signals.task_postrun.connect(store_run)


def _with_run(entry: ScheduleEntry, ended_at: str | None, now: float) -> ScheduleEntry:
    if ended_at is None:
        return entry
    overdue = entry.every is not None and now - float(ended_at) > entry.every + GRACE.total_seconds()
    return replace(entry, last_run_at=datetime.fromtimestamp(float(ended_at), UTC), overdue=overdue)


def _entry(app: Any, name: str, definition: str | None, meta: str | None) -> ScheduleEntry:
    try:
        fields = RedBeatSchedulerEntry.decode_definition(definition or "")
        sent_at = RedBeatSchedulerEntry.decode_meta(meta)["last_run_at"]
        entry = RedBeatSchedulerEntry(app=app, **fields)
    except Exception:  # it is missing or malformed; the next tick of beat stores it
        settings = app.conf.beat_schedule[name]
        return ScheduleEntry(name, settings["task"], _seconds(settings["schedule"]))
    entry.last_run_at = sent_at  # Celery would replace None by the current time
    every = _seconds(fields["schedule"])
    # RedBeat's own due_at is correct only at the time of the run: it counts the time since then twice.
    next_run_at = sent_at + timedelta(seconds=every) if sent_at and every else entry.due_at
    return ScheduleEntry(name, fields["task"], every, sent_at, next_run_at)


def _seconds(schedule: Any) -> float | None:
    if isinstance(schedule, int | float):
        return float(schedule)
    return float(schedule.run_every.total_seconds()) if type(schedule) is schedules.schedule else None
