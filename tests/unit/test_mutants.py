"""The catalogue of mutants matches the current code and tests, and the documentation matches the catalogue."""

from __future__ import annotations

import os

import pytest

from tests.mutants.catalogue import MUTANTS, PROMISES
from tests.mutants.mutant import Edit, Mutant, Outdated
from tests.mutants.table import tables
from tests.mutants.tree import ROOT
from tests.support import programs


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """The test ids that pytest collects from the files that the mutants name, with and without parameters."""
    files = sorted({test.partition("::")[0] for mutant in MUTANTS for test in mutant.tests})
    # PYTEST_ADDOPTS and the variables that pytest-xdist sets do not apply to this run.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    listed = programs.run(["pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files], environment)
    assert listed.returncode == 0, listed.stdout
    found = [line for line in listed.stdout.splitlines() if "::" in line]
    return {*found, *(test.partition("[")[0] for test in found)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_applies_and_compiles(mutant: Mutant) -> None:
    for edit in mutant.edits:
        source = (ROOT / edit.file).read_text(encoding="utf-8")

        mutated = edit.applied(source)

        assert mutated != source
        compile(mutated, edit.file, "exec")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
@pytest.mark.exhaustive
def test_tests_of_mutant_exist(mutant: Mutant, collected: set[str]) -> None:
    assert mutant.tests
    assert set(mutant.tests) <= collected


def test_mutant_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_docs_contain_tables_of_catalogue() -> None:
    assert tables(PROMISES) in (ROOT / "docs" / "promises.md").read_text(encoding="utf-8"), (
        "python -m tests.mutants --table"
    )


@pytest.mark.parametrize(
    ("where", "code"), [("gone", "x = 1"), ("here", "x = 2"), ("here", "x"), ("here", "y = 2"), ("here.x", "y")]
)
def test_edit_requires_exactly_one_match(where: str, code: str) -> None:
    source = "def here():\n    x = 1\n    return x\n\n\ny = 2\n"

    with pytest.raises(Outdated):
        Edit("file.py", where, code, "").applied(source)
