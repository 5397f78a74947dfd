"""`python -m bench` runs every benchmark, `python -m bench export launch` those that are named."""

from __future__ import annotations

import argparse
import time

from bench import export, latency, launch, streams, throughput, timelines
from bench.figures import HEADER, Figure
from bench.house import House

BENCHMARKS = {
    "export": export.run,
    "launch": launch.run,
    "throughput": throughput.run,
    "latency": latency.run,
    "streams": streams.run,
    "timelines": timelines.run,
}


def main() -> None:
    """Print the figures as they come, and at the end how many reached their target."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What Microblog costs, as ratios.")
    parser.add_argument("names", nargs="*", metavar="benchmark", help=f"any of: {', '.join(BENCHMARKS)}")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark called {', '.join(sorted(unknown))}")
    began = time.monotonic()
    figures: list[Figure] = []
    print(HEADER, flush=True)
    with House() as house:
        for name in names:
            for figure in BENCHMARKS[name](house):
                print(figure, flush=True)
                figures.append(figure)
    aimed = [figure for figure in figures if figure.reached is not None]
    reached = sum(figure.reached is True for figure in aimed)
    print(f"\n{reached} of {len(aimed)} targets reached, in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
