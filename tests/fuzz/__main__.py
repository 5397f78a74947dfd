"""Send random requests to all routes. The exit code is 1 if a request caused a server error."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flask import Flask

from tests.fuzz.run import Fuzzer, FuzzReport, random_seed
from tests.support import app_factory, process_state
from tests.support.servers import PostgresServer, RedisServer, postgres_binaries

# The first bytes of a stream arrive soon, and an exception becomes a 500 instead of being raised in the client.
SETTINGS = {"RATELIMIT_ENABLED": False, "TESTING": False, "STREAM_HEARTBEAT": 1.0}
EVERY = 1000  # requests between two lines about the progress


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000, metavar="N", help="number of requests (100000)")
    parser.add_argument(
        "--seed", type=int, default=random_seed(), metavar="N", help="seed, which repeats the same requests"
    )
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first request (0)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite", help="(sqlite)")
    process_state.normalize()
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(f"{chosen.requests} requests, seed {chosen.seed}, {chosen.database}", flush=True)
    with _application(chosen.database) as app:
        fuzzer, printed, began = Fuzzer(app, chosen.seed), 0, time.monotonic()
        last = chosen.first + chosen.requests
        for first in range(chosen.first, last, EVERY):
            report = fuzzer.run(first, min(EVERY, last - first))
            for fault in report.faults[printed:]:
                print(fault, flush=True)
            printed = len(report.faults)
            print(f"  {sum(report.asked.values())} in {time.monotonic() - began:.0f} s, {printed} faults", flush=True)
        _print_summary(fuzzer.report)
    sys.exit(bool(fuzzer.report.faults))


def _print_summary(report: FuzzReport) -> None:
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(report.statuses.items()))
    print(f"{len(report.asked)} routes; {statuses}; the slowest took {report.slowest:.1f} s")
    for rule, count in report.streams.items():
        print(f"{rule} is a stream: of {count} responses only the first bytes were read")
    print(f"{len(report.faults)} faults")


@contextmanager
def _application(database: str) -> Iterator[Flask]:
    """Provide the application with its own Redis and `database`."""
    with ExitStack() as closing:
        folder = closing.enter_context(tempfile.TemporaryDirectory(prefix="microblog-fuzz-"))
        redis = RedisServer()
        closing.callback(redis.stop)
        redis.start()
        url = f"sqlite:///{Path(folder) / 'microblog.db'}" if database == "sqlite" else _postgres(closing)
        inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        environment = inherited | {"MICROBLOG_ENV": "testing", "INSTANCE_PATH": folder, "REDIS_URL": redis.url}
        app_factory.migrate(environment, url)
        yield closing.enter_context(app_factory.application(environment | {"DATABASE_URL": url}, **SETTINGS))


def _postgres(closing: ExitStack) -> str:
    """Return the URL of an empty database; `closing` stops its server."""
    binaries = postgres_binaries()
    if binaries is None:
        sys.exit("PostgreSQL is not installed; use --database sqlite.")
    server = PostgresServer(binaries)
    closing.callback(server.stop)
    server.start()
    return server.create("fuzz")


if __name__ == "__main__":
    main()
