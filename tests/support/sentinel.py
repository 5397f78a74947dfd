"""A sentinel of Redis for the tests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from microblog.development.process_manager import ManagedProcess
from microblog.development.servers import redis_answers, redis_binary
from redis_settings import parse_redis_url, redis_settings
from tests.support.servers import TIMEOUT, free_port

SENTINEL_GROUP = "mymaster"


class SentinelServer:
    """A sentinel for a group of servers whose master listens on `master_port`. It alone decides on a failover.

    It rewrites its configuration in `folder`, which has the further lines `settings`.
    """

    def __init__(self, folder: Path, master_port: int, *settings: str) -> None:
        self.port = free_port()
        self.file = folder / "sentinel.conf"
        lines = [
            f"sentinel monitor {SENTINEL_GROUP} 127.0.0.1 {master_port} 1",
            f"sentinel down-after-milliseconds {SENTINEL_GROUP} 3000",
            f"sentinel failover-timeout {SENTINEL_GROUP} 6000",
        ]
        self.file.write_text("\n".join([*lines, *settings, ""]))

    @contextlib.contextmanager
    def running(self, url: str, *options: str, ca_certs: str | None = None) -> Iterator[SentinelServer]:
        """Run the sentinel during the block, which begins when a client with the REDIS_URL `url` finds the master.

        `options` are those of the command line.
        """
        settings = redis_settings(parse_redis_url(url), ca_certs, "", timeout=2.0)
        client = settings["REDIS_URL"], settings["REDIS_TLS"] | settings["REDIS_SENTINEL"]
        command = [redis_binary(), str(self.file), "--sentinel", "--bind", "127.0.0.1", "--port", str(self.port)]
        process = ManagedProcess([*command, *options], os.environ, stdout=self.file.with_suffix(".log"))
        try:
            process.wait_until(lambda: redis_answers(*client), "the sentinel", TIMEOUT)
            yield self
        finally:
            process.kill()
