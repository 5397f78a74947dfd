"""`python -m tests.mutants`: the exit code is 0 if the tests named for each mutant detect it."""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from tests.mutants.catalogue import MUTANTS, PROMISES
from tests.mutants.mutant import Mutant
from tests.mutants.table import tables
from tests.mutants.trial import TrialResult, try_mutant, try_unchanged

AT_ONCE = 2  # concurrent copies, one for each core of a small machine


def main() -> int:
    """Test each mutant. Return 0 if all are detected, 1 if one survives."""
    arguments = _arguments()
    if arguments.table:
        print(tables(PROMISES))
        return 0
    began = time.monotonic()
    chosen = [mutant for mutant in MUTANTS if not arguments.only or mutant.name in arguments.only]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        if not _print(pool.map(lambda group: try_unchanged(*group), _by_file(chosen)), good="pass", bad="FAIL"):
            print("These tests fail without a mutant, so no mutant was tested.")
            return 1
        detected = _print(pool.map(try_mutant, chosen), good="detected", bad="SURVIVED")
    print(
        f"{len(chosen)} mutants in {time.monotonic() - began:.0f} s: {'all detected' if detected else 'some SURVIVED'}"
    )
    return 0 if detected else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description="Remove each line that keeps a promise, and require a test failure."
    )
    names = [mutant.name for mutant in MUTANTS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="only these, named as in the output")
    parser.add_argument("--table", action="store_true", help="print the tables of docs/promises.md and exit")
    return parser.parse_args()


def _by_file(mutants: Iterable[Mutant]) -> list[tuple[str, Sequence[str]]]:
    """Return all tests of `mutants`, grouped by file, in the order of the list."""
    tests: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for mutant in mutants:
        for test in mutant.tests:
            tests[test.partition("::")[0]][test] = None
    return [(PurePosixPath(file).name, list(group)) for file, group in tests.items()]


def _print(results: Iterable[TrialResult], *, good: str, bad: str) -> bool:
    """Print each result as soon as it is known. Return whether all are good."""
    all_good = True
    for result in results:
        all_good = all_good and not result.problems
        word = bad if result.problems else good
        print(f"{word:8}  {result.seconds:6.1f} s  {result.tests:3} tests  {result.name}", flush=True)
        for problem in result.problems:
            print(f"          {problem}", flush=True)
    return all_good


if __name__ == "__main__":
    sys.exit(main())
