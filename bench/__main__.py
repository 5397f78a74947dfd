"""`python -m bench` runs every benchmark, `python -m bench export launch` those that are named."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable
from functools import partial

from bench import export, imports, latency, launch, lists, recovery, scrape, streams, throughput, timelines, unread
from bench.figures import Line
from bench.house import House

BENCHMARKS: dict[str, Callable[[House], Iterable[Line]]] = {
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
    "scrape": scrape.run,
}


def main() -> None:
    """Print the figures as they come, and at the end how many reached their target."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What Microblog costs, and gives.")
    parser.add_argument("names", nargs="*", metavar="benchmark", help=f"any of: {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=recovery.PATIENCE,
        metavar="SECONDS",
        help="how long recovery waits for a job after the fault's end (%(default)g)",
    )
    parser.add_argument(
        "--posts",
        type=_posts,
        default=imports.MANY,
        metavar="N",
        help="how many posts imports reads (%(default)d): a quick look needs fewer",
    )
    arguments = parser.parse_args()
    names = arguments.names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark called {', '.join(sorted(unknown))}")
    benchmarks = BENCHMARKS | {
        "imports": partial(imports.run, posts=arguments.posts),
        "recovery": partial(recovery.run, patience=arguments.patience),
    }
    began = time.monotonic()
    lines: list[Line] = []
    with House() as house:
        for name in names:
            for line in benchmarks[name](house):
                if not lines or lines[-1].header != line.header:
                    print(line.header)
                print(line, flush=True)
                lines.append(line)
    aimed = [line for line in lines if line.reached is not None]
    reached = sum(line.reached is True for line in aimed)
    print(f"\n{reached} of {len(aimed)} targets reached, in {time.monotonic() - began:.0f} s")


def _seconds(text: str) -> float:
    """The number in `text`. Raises argparse.ArgumentTypeError if it is none that somebody can wait for."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds


def _posts(text: str) -> int:
    """The number in `text`. Raises argparse.ArgumentTypeError if it is not that of some posts."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of posts")
    return int(text)


if __name__ == "__main__":
    main()
