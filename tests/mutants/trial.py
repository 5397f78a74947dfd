"""Run tests in a copy of the project, unchanged or mutated, and judge their outcomes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutant import Mutant
from tests.mutants.outcomes import ASSERTED, PASSED, SKIPPED
from tests.mutants.tree import copied_tree

TESTS_FAILED = 1  # pytest's exit code; other codes mean that it could not run the tests


@dataclass(frozen=True)
class TrialResult:
    """The result of one trial: duration in seconds, number of tests, and the problems that its outcomes show."""

    name: str
    seconds: float
    tests: int
    problems: list[str]


@dataclass(frozen=True)
class _Run:
    exit_code: int
    outcomes: dict[str, tuple[str, str]]
    output: str


def try_unchanged(name: str, tests: Collection[str]) -> TrialResult:
    """Require that `tests` pass in an unchanged copy."""
    began = time.monotonic()
    with copied_tree() as tree:
        run = _run(tree, tests)
    problems = [
        f"{test} fails without a mutant: {message}"
        for test, (outcome, message) in run.outcomes.items()
        if outcome not in (PASSED, SKIPPED)
    ]
    if run.exit_code and not problems:
        problems = [f"pytest ended with {run.exit_code}:\n{run.output}"]
    return TrialResult(name, time.monotonic() - began, len(run.outcomes), problems)


def try_mutant(mutant: Mutant) -> TrialResult:
    """Require that each test of `mutant` fails by an assertion in a copy with its edits."""
    began = time.monotonic()
    with copied_tree() as tree:
        for edit in mutant.edits:
            edit.apply(tree)
        run = _run(tree, mutant.tests)
    return TrialResult(mutant.name, time.monotonic() - began, len(run.outcomes), list(_survivals(mutant, run)))


def _survivals(mutant: Mutant, run: _Run) -> Iterator[str]:
    if run.exit_code not in (0, TESTS_FAILED) or not run.outcomes:
        yield f"pytest ended with {run.exit_code}:\n{run.output}"
        return
    for test in mutant.tests:
        found = {name: outcome for name, outcome in run.outcomes.items() if name == test or name.startswith(f"{test}[")}
        if all(outcome == SKIPPED for outcome, _message in found.values()):
            yield f"{test} did not run"
        for name, (outcome, message) in found.items():
            if outcome not in (ASSERTED, SKIPPED):
                yield f"{name} {outcome} {message}".rstrip()


def _run(tree: Path, tests: Collection[str]) -> _Run:
    outcomes = tree.parent / "outcomes.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.mutants.outcomes"]
    pytest = subprocess.run(
        [*command, "--outcomes", str(outcomes), *tests], cwd=tree, capture_output=True, text=True, check=False
    )
    found = json.loads(outcomes.read_text()) if outcomes.exists() else {}
    return _Run(
        pytest.returncode,
        {test: (outcome, message) for test, (outcome, message) in found.items()},
        (pytest.stdout + pytest.stderr)[-2000:],
    )
