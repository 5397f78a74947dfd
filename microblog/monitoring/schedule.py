"""The schedule: what beat sends, how often, when last and when next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery.schedules import schedule as interval
from flask import current_app
from redbeat.schedulers import RedBeatConfig, RedBeatSchedulerEntry

from microblog.extensions import redis_client


@dataclass(frozen=True)
class Entry:
    """An entry of the schedule.

    `every` is in seconds, None if it is not a fixed pause; `last_run_at` is None if it never was sent, `next_run_at` if
    no beat has taken it up yet.
    """

    name: str
    task: str
    every: float | None
    last_run_at: datetime | None
    next_run_at: datetime | None


def entries() -> list[Entry]:
    """The entries of the settings, and those that RedBeat keeps besides. Raises redis.exceptions.RedisError."""
    app = current_app.extensions["celery"]
    app.redbeat_conf = config = RedBeatConfig(app)
    keys = {config.key_prefix + name: name for name in app.conf.beat_schedule}
    connection = redis_client.connection  # RedBeat's own client waits for a Redis that is away
    scheduled = map(str, connection.zrange(config.schedule_key, 0, -1))
    keys |= {key: key.removeprefix(config.key_prefix) for key in scheduled}
    with connection.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hmget(key, "definition", "meta")
        stored = pipe.execute()
    return [_entry(app, name, *kept) for name, kept in zip(keys.values(), stored, strict=True)]


def beat_is_there() -> bool:
    """Whether a beat holds the schedule's lock. Raises redis.exceptions.RedisError."""
    config = RedBeatConfig(current_app.extensions["celery"])
    return bool(redis_client.connection.exists(config.lock_key))


def _entry(app: Any, name: str, definition: str | None, meta: str | None) -> Entry:
    if definition is None:
        settings = app.conf.beat_schedule.get(name, {})
        return Entry(name, settings.get("task", ""), _seconds(settings.get("schedule")), None, None)
    known = RedBeatSchedulerEntry.decode_definition(definition)
    last_run_at = RedBeatSchedulerEntry.decode_meta(meta)["last_run_at"]
    entry = RedBeatSchedulerEntry(app=app, **known)
    entry.last_run_at = last_run_at  # which Celery would take to be now if there was none
    every = _seconds(known["schedule"])
    # RedBeat's own due_at is for the moment at which it ran: it counts what has passed since then twice.
    next_run_at = last_run_at + timedelta(seconds=every) if last_run_at and every else entry.due_at
    return Entry(name, known["task"], every, last_run_at, next_run_at)


def _seconds(schedule: Any) -> float | None:
    if isinstance(schedule, int | float):
        return float(schedule)
    return float(schedule.run_every.total_seconds()) if type(schedule) is interval else None
