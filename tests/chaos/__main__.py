"""`python -m tests.chaos --seed 7 --seconds 300 --database sqlite`: the exit code is 0 if every promise was kept."""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import ChaosReport, run
from tests.chaos.schedule import plan
from tests.support import process_state
from tests.support.servers import PostgresServer, postgres_binaries

RUNS = 5  # random seeds, if none is given


def main() -> int:
    """Run each seed on each database. Return 0 if every promise was kept in all runs."""
    process_state.normalize()
    arguments = _arguments()
    seeds = arguments.seed or [random.randrange(1_000_000) for _ in range(RUNS)]
    kept = True
    with contextlib.ExitStack() as stack:
        postgres = _postgres(stack) if "postgresql" in arguments.database else None
        for seed in seeds:
            print(f"seed {seed}:", *plan(seed, arguments.seconds), sep="\n", flush=True)
            for database in arguments.database:
                report = _run(seed, arguments.seconds, database, postgres)
                print(report, flush=True)
                kept = kept and not report.violations
    return 0 if kept else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Check the promises under faults.")
    parser.add_argument("--seed", type=int, nargs="+", help=f"seeds of the schedule (default: {RUNS} random ones)")
    parser.add_argument("--seconds", type=float, default=300.0, help="duration of each run's faults (default: 300)")
    parser.add_argument("--database", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    return parser.parse_args()


def _postgres(stack: contextlib.ExitStack) -> PostgresServer:
    binaries = postgres_binaries()
    if binaries is None:
        sys.exit("PostgreSQL is not installed; use --database sqlite.")
    server = PostgresServer(binaries)
    server.start()
    stack.callback(server.stop)
    return server


def _run(seed: int, seconds: float, database: str, postgres: PostgresServer | None) -> ChaosReport:
    folder = Path(tempfile.mkdtemp(prefix="microblog-chaos-"))
    report = run(seed, seconds, database, folder, postgres)
    if not report.violations:
        shutil.rmtree(folder, ignore_errors=True)
    return report


if __name__ == "__main__":
    sys.exit(main())
