"""The time from update_state() in a worker to the event in a browser's stream, compared to a bare Redis publish."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from statistics import quantiles
from typing import Any

import redis

from bench.figures import Figure, compare, state
from bench.servers import OURS, Servers, add_users, session_cookie, task_has_ended
from bench.tasks import tick
from microblog.extensions import db
from microblog.notifications.pubsub import CHANNEL as EVENTS
from microblog.taskqueue.launch import launch
from tests.support.servers import wait_for

TICKS, PAUSE = 150, 0.1  # seconds
CHANNEL = "bench"


def run(servers: Servers) -> Iterator[Figure]:
    """Yield the 95th percentile for each database, and its ratio to the bare publish."""
    for database in servers.databases:
        ours, raw = _measure(servers, database)
        yield state(f"update_state() to event in the browser, p95, {database}", ours, "ms", at_most=100)
        yield compare(f"the same ÷ bare Redis publish, p95, {database}", ours, raw, "ms")


def _measure(servers: Servers, database: str) -> tuple[float, float]:
    """Return the 95th percentiles of the latency of events, and of bare messages at the same time, in milliseconds."""
    environment = servers.environment(database)
    with (
        servers.app(environment) as app,
        servers.worker(environment, OURS, queue="default"),
        servers.web(environment) as (port, _process),
    ):
        [user_id] = add_users(1)
        events, messages = list[float](), list[float]()
        cookie = session_cookie(app, user_id)
        threading.Thread(target=_watch, args=(port, cookie, events), daemon=True).start()
        threading.Thread(target=_subscribe, args=(servers.redis.client, messages), daemon=True).start()
        channels = CHANNEL, servers.redis.key(EVENTS)
        wait_for(lambda: all(count for _channel, count in servers.redis.client.pubsub_numsub(*channels)))
        task_id = launch(tick.s(TICKS, PAUSE), user_id=user_id).id
        db.session.commit()
        while not task_has_ended(task_id):
            time.sleep(PAUSE)
            servers.redis.client.publish(CHANNEL, repr(time.time()))
        wait_for(lambda: len(events) == TICKS, what=f"{TICKS} events arrive")
    return quantiles(events, n=20)[-1], quantiles(messages, n=20)[-1]


def _watch(port: int, cookie: str, delays: list[float]) -> None:
    """Read a user's stream as a browser does, until the server closes it."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/notifications/stream", headers={"Cookie": cookie})
    response = connection.getresponse()
    try:
        while line := response.readline():
            now = time.time()
            if line.startswith(b"data: "):
                sent = _sent_at(json.loads(line.removeprefix(b"data: ")))
                delays.extend([(now - sent) * 1000] if sent else [])
    except (OSError, http.client.HTTPException):
        return  # the measurement is over


def _sent_at(event: dict[str, Any]) -> float | None:
    """Return the time at which the task reported its progress, or None for another event."""
    progress = event.get("data", {}).get("progress") or {}
    return float(progress["message"]) if progress.get("message") else None


def _subscribe(client: redis.Redis, delays: list[float]) -> None:
    pubsub: Any = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py has no annotation
    with pubsub as channel, suppress(redis.RedisError):  # raised when Redis stops at the end
        channel.subscribe(CHANNEL)
        for message in channel.listen():
            now = time.time()
            delays.append((now - float(message["data"])) * 1000)
