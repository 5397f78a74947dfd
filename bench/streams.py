"""The cost of 500 open event streams in one web process: connections, memory, idle queries, and time to notify all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from uuid import uuid4

import psycopg
from flask import Flask

from bench.figures import Figure, compare, state
from bench.processes import connections_to, memory
from bench.servers import Servers, add_users, session_cookie
from microblog.clock import utcnow
from microblog.notifications.pubsub import publish_change
from microblog.taskqueue.interface import TaskChange

USERS, PAGES_EACH = 50, 10
PAGES = USERS * PAGES_EACH
ROUNDS = 9
HEARTBEAT = 3.0  # seconds; short, so that the idle period contains several
SETTLE = 11.0  # seconds until PostgreSQL's statistics include all previous transactions
IDLE = 10.0  # seconds


def run(servers: Servers) -> Iterator[Figure]:
    """Yield the figures, all measured from the same 500 streams."""
    database = servers.databases[-1]
    environment = servers.environment(database) | {"STREAM_HEARTBEAT": str(HEARTBEAT)}
    with servers.app(environment) as app, servers.web(environment) as (port, process):
        users = add_users(USERS)
        cookies = [session_cookie(app, user_id) for user_id in users]
        measurement = _Measurement(servers, app, port, process, users, cookies, environment["DATABASE_URL"])
        yield from asyncio.run(measurement.take())


@dataclass
class _Measurement:
    servers: Servers
    app: Flask
    port: int
    process: int
    users: list[int]
    cookies: list[str]
    database_url: str

    async def take(self) -> list[Figure]:
        """Open the pages, measure them idle, then send events; the pages close with the event loop."""
        await self._warm_up()
        before = memory(self.process)
        pages = await self._open(self.cookies * PAGES_EACH)
        redis_connections = connections_to(self.servers.redis.port, self.process)
        queries = await self._idle_queries()
        each = (memory(self.process) - before) / PAGES / 1024
        ours, raw = await self._times_to_reach(pages)
        figures = [
            state(f"{PAGES} open pages: Redis connections of the web process", redis_connections, "", at_most=5),
            state(f"{PAGES} open pages: memory for each", each, "KB"),
            compare(f"{PAGES} open pages: time to notify all ÷ {PAGES} bare subscribers", ours, raw, "ms"),
        ]
        if queries is not None:
            what = f"{PAGES} open pages: database queries in {IDLE:.0f} s without events"
            figures.insert(1, state(what, queries, "", at_most=0))
        return figures

    async def _warm_up(self) -> None:
        """Use every code path once, so that memory allocated only once is not attributed to the pages."""
        pages = await self._open(self.cookies)
        await self._time_to_notify(pages)
        for page in pages:
            page.close()
        await asyncio.sleep(2 * HEARTBEAT)  # until the server has noticed the closed connections

    async def _open(self, cookies: Sequence[str]) -> list[StreamPage]:
        return list(await asyncio.gather(*(StreamPage.open(self.port, cookie) for cookie in cookies)))

    async def _idle_queries(self) -> int | None:
        """Return the number of database transactions while there are no events; None on SQLite (no counter)."""
        if not self.database_url.startswith("postgresql"):
            return None
        self._admin("ALTER SYSTEM SET autovacuum = off")  # its transactions would be counted, too
        await asyncio.sleep(SETTLE)
        before = self._transactions()
        await asyncio.sleep(IDLE)
        return self._transactions() - before

    def _transactions(self) -> int:
        name = self.database_url.rpartition("/")[2]
        with psycopg.connect(self.servers.postgres.url("postgres")) as connection:
            query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"
            row = connection.execute(query, (name,)).fetchone()
        assert row is not None
        return int(row[0])

    def _admin(self, statement: str) -> None:
        with psycopg.connect(self.servers.postgres.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())
            connection.execute("SELECT pg_reload_conf()")

    async def _times_to_reach(self, pages: list[StreamPage]) -> tuple[float, float]:
        """Return the median milliseconds until all pages, and as many bare Redis subscribers, have got an event."""
        channels = [f"bench:{user_id}" for user_id in self.users]
        subscribers = [await Subscriber.open(self.servers.redis.port, channel) for channel in channels * PAGES_EACH]
        ours, raw = list[float](), list[float]()
        for _round in range(ROUNDS):
            ours.append(await self._time_to_notify(pages))
            raw.append(await self._time_to_publish(subscribers, channels))
        for subscriber in subscribers:
            subscriber.close()
        return median(ours), median(raw)

    async def _time_to_notify(self, pages: list[StreamPage]) -> float:
        """Return the milliseconds until a change for each user has reached all `pages`."""
        task_id = str(uuid4())
        receiving = [asyncio.create_task(page.hear(task_id)) for page in pages]
        await asyncio.sleep(0)
        began = time.perf_counter()
        for user_id in self.users:
            publish_change(self.app, TaskChange(task_id, task_id, 0, user_id, "STARTED", None, utcnow()))
        async with asyncio.timeout(30):
            await asyncio.gather(*receiving)
        return (time.perf_counter() - began) * 1000

    async def _time_to_publish(self, subscribers: list[Subscriber], channels: list[str]) -> float:
        receiving = [asyncio.create_task(subscriber.hear()) for subscriber in subscribers]
        await asyncio.sleep(0)
        began = time.perf_counter()
        for channel in channels:
            self.servers.redis.client.publish(channel, "x" * 200)
        async with asyncio.timeout(30):
            await asyncio.gather(*receiving)
        return (time.perf_counter() - began) * 1000


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def close(self) -> None:
        self.writer.close()


class StreamPage(_Connection):
    """A page with an open event stream."""

    @classmethod
    async def open(cls, port: int, cookie: str) -> StreamPage:
        """Open the stream, and return once the server answers, and so has subscribed to the user's events."""
        page = cls(*await asyncio.open_connection("127.0.0.1", port))
        request = f"GET /notifications/stream HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"
        page.writer.write(request.encode())
        head = await page.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head.decode()
        await page.reader.readuntil(b"\n\n")  # the field `retry`
        return page

    async def hear(self, task_id: str) -> None:
        """Read until there is an event about the task."""
        while task_id.encode() not in await self.reader.readuntil(b"\n\n"):
            pass


class Subscriber(_Connection):
    """A connection to Redis that is subscribed to one channel."""

    @classmethod
    async def open(cls, port: int, channel: str) -> Subscriber:
        """Open the connection, and return once Redis has confirmed the subscription."""
        subscriber = cls(*await asyncio.open_connection("127.0.0.1", port))
        subscriber.writer.write(f"SUBSCRIBE {channel}\r\n".encode())
        await subscriber.reader.readuntil(b":1\r\n")
        return subscriber

    async def hear(self) -> None:
        """Read one message."""
        await self.reader.readuntil(b"x\r\n")
