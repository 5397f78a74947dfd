"""From update_state() in a worker to the event in a browser's open stream, next to a bare Redis publish."""

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
from bench.house import OURS, House, add_users, session_cookie, task_has_ended
from bench.tasks import tick
from microblog.extensions import db
from microblog.taskqueue.launch import launch
from tests.support.servers import wait_for

TICKS, PAUSE = 150, 0.1  # seconds
CHANNEL = "bench"


def run(house: House) -> Iterator[Figure]:
    """The 95th percentile for each database."""
    for database in house.databases:
        ours, raw = _measure(house, database)
        yield state(f"update_state() to event in the browser, p95, {database}", ours, "ms", at_most=100)
        yield compare(f"the same ÷ bare Redis publish, p95, {database}", ours, raw, "ms")


def _measure(house: House, database: str) -> tuple[float, float]:
    """The 95th percentiles of the milliseconds that events, and bare messages meanwhile, were on their way."""
    environment = house.environment(database)
    with (
        house.app(environment) as app,
        house.worker(environment, OURS, queue="default"),
        house.web(environment) as (port, _process),
    ):
        [user_id] = add_users(1)
        events, messages = list[float](), list[float]()
        cookie = session_cookie(app, user_id)
        threading.Thread(target=_watch, args=(port, cookie, events), daemon=True).start()
        threading.Thread(target=_subscribe, args=(house.redis.client, messages), daemon=True).start()
        wait_for(lambda: all(house.redis.client.pubsub_numsub(CHANNEL, "microblog:events")[n][1] for n in (0, 1)))
        task_id = launch(tick.s(TICKS, PAUSE), user_id=user_id).id
        db.session.commit()
        while not task_has_ended(task_id):
            time.sleep(PAUSE)
            house.redis.client.publish(CHANNEL, repr(time.time()))
        wait_for(lambda: len(events) == TICKS, what=f"{TICKS} events arrive")
    return quantiles(events, n=20)[-1], quantiles(messages, n=20)[-1]


def _watch(port: int, cookie: str, delays: list[float]) -> None:
    """Read a user's stream as a browser does, until the server ends it."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/notifications/stream", headers={"Cookie": cookie})
    response = connection.getresponse()
    try:
        while line := response.readline():
            now = time.time()
            if line.startswith(b"data: "):
                told = _told_at(json.loads(line.removeprefix(b"data: ")))
                delays.extend([(now - told) * 1000] if told else [])
    except (OSError, http.client.HTTPException):
        return  # the measurement is over


def _told_at(event: dict[str, Any]) -> float | None:
    """When the task told its progress, if that is what the event is about."""
    progress = event.get("data", {}).get("progress") or {}
    return float(progress["message"]) if progress.get("message") else None


def _subscribe(client: redis.Redis, delays: list[float]) -> None:
    pubsub: Any = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    with pubsub as channel, suppress(redis.RedisError):  # at the end
        channel.subscribe(CHANNEL)
        for message in channel.listen():
            now = time.time()
            delays.append((now - float(message["data"])) * 1000)
