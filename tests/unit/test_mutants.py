"""The list of mutants is about the code as it is, and the docs say what is in it."""

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
    """The tests that pytest finds in the files that the mutants name, with and without their parameters."""
    files = sorted({test.partition("::")[0] for mutant in MUTANTS for test in mutant.tests})
    # Neither PYTEST_ADDOPTS nor what pytest-xdist tells its processes is meant for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    listed = programs.run(["pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files], environment)
    assert listed.returncode == 0, listed.stdout
    found = [line for line in listed.stdout.splitlines() if "::" in line]
    return {*found, *(test.partition("[")[0] for test in found)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_lines_of_a_mutant_are_there_and_python_without_them_too(mutant: Mutant) -> None:
    for edit in mutant.edits:
        source = (ROOT / edit.file).read_text(encoding="utf-8")

        mutated = edit.applied(source)

        assert mutated != source
        compile(mutated, edit.file, "exec")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
@pytest.mark.exhaustive
def test_the_tests_that_must_notice_a_mutant_are_there(mutant: Mutant, collected: set[str]) -> None:
    assert mutant.tests
    assert set(mutant.tests) <= collected


def test_no_two_mutants_share_a_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_the_docs_have_the_table_that_the_list_makes() -> None:
    assert tables(PROMISES) in (ROOT / "docs" / "promises.md").read_text(encoding="utf-8"), (
        "python -m tests.mutants --table"
    )


@pytest.mark.parametrize(
    ("where", "code"), [("gone", "x = 1"), ("here", "x = 2"), ("here", "x"), ("here", "y = 2"), ("here.x", "y")]
)
def test_code_that_is_not_there_just_once_is_refused(where: str, code: str) -> None:
    source = "def here():\n    x = 1\n    return x\n\n\ny = 2\n"

    with pytest.raises(Outdated):
        Edit("file.py", where, code, "").applied(source)
