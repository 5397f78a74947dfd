"""`python -m bench` runs all benchmarks, `python -m bench export launch` only these two."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable
from functools import partial

from bench import (
    backlog,
    export,
    imports,
    latency,
    launch,
    lists,
    mass_actions,
    recovery,
    scrape,
    streams,
    throughput,
    timelines,
    unread,
)
from bench.figures import Line
from bench.servers import Servers
from tests.support import process_state

BENCHMARKS: dict[str, Callable[[Servers], Iterable[Line]]] = {
    "export": export.run,
    "imports": imports.run,
    "launch": launch.run,
    "throughput": throughput.run,
    "latency": latency.run,
    "streams": streams.run,
    "lists": lists.run,
    "timelines": timelines.run,
    "unread": unread.run,
    "recovery": recovery.run,
    "backlog": backlog.run,
    "mass-actions": mass_actions.run,
    "scrape": scrape.run,
}


def main() -> None:
    """Print each result as soon as it is measured, and at the end the number of targets reached."""
    process_state.normalize()
    names, benchmarks = _chosen()
    began = time.monotonic()
    lines: list[Line] = []
    with Servers() as servers:
        for name in names:
            for line in benchmarks[name](servers):
                if not lines or lines[-1].header != line.header:
                    print(line.header)
                print(line, flush=True)
                lines.append(line)
    targeted = [line for line in lines if line.reached is not None]
    reached = sum(line.reached is True for line in targeted)
    print(f"\n{reached} of {len(targeted)} targets reached, in {time.monotonic() - began:.0f} s")


def _chosen() -> tuple[list[str], dict[str, Callable[[Servers], Iterable[Line]]]]:
    """Return the names given on the command line, or all, and the benchmarks with the options given."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Run the benchmarks of Microblog.")
    parser.add_argument("names", nargs="*", metavar="benchmark", help=f"any of: {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=recovery.JOB_TIMEOUT,
        metavar="SECONDS",
        help="how long recovery waits for a job after the end of the fault (default: %(default)g)",
    )
    for option, default, what in (
        ("--exports", backlog.MANY, "number of exports in backlog"),
        ("--jobs", mass_actions.MANY, "number of jobs in mass-actions"),
        ("--posts", imports.MANY, "number of posts that imports reads"),
    ):
        sentence = f"{what} (default: %(default)d); fewer for a quick run"
        parser.add_argument(option, type=_count, default=default, metavar="N", help=sentence)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark called {', '.join(sorted(unknown))}")
    return arguments.names or list(BENCHMARKS), BENCHMARKS | {
        "imports": partial(imports.run, posts=arguments.posts),
        "backlog": partial(backlog.run, exports=arguments.exports),
        "mass-actions": partial(mass_actions.run, jobs=arguments.jobs),
        "recovery": partial(recovery.run, timeout=arguments.timeout),
    }


def _seconds(text: str) -> float:
    """Return the number in `text`. Raises argparse.ArgumentTypeError unless it is positive and finite."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds


def _count(text: str) -> int:
    """Return the number in `text`. Raises argparse.ArgumentTypeError unless it is a positive integer."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


if __name__ == "__main__":
    main()
