"""The list of mutants is about the code as it is, and the docs say what is in it."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.mutants.catalogue import MUTANTS, PROMISES
from tests.mutants.mutant import Edit, Mutant, Outdated
from tests.mutants.table import tables
from tests.mutants.tree import ROOT


@cache
def defined_in(path: str) -> frozenset[str]:
    """The tests of a file: ``test_x``, ``TestY::test_z``."""
    body = ast.parse((ROOT / path).read_text()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    methods = {
        f"{each.name}::{node.name}" for each in classes for node in each.body if isinstance(node, ast.FunctionDef)
    }
    return frozenset(methods | {node.name for node in body if isinstance(node, ast.FunctionDef)})


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_lines_of_a_mutant_are_there_and_python_without_them_too(mutant: Mutant) -> None:
    for edit in mutant.edits:
        source = (ROOT / edit.file).read_text()

        mutated = edit.applied(source)

        assert mutated != source
        compile(mutated, edit.file, "exec")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_must_notice_a_mutant_are_there(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.tests:
        path, _colons, name = test.partition("::")
        assert name.partition("[")[0] in defined_in(path)


def test_no_two_mutants_share_a_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_the_docs_have_the_table_that_the_list_makes() -> None:
    assert tables(PROMISES) in (ROOT / "docs" / "architecture.md").read_text(), "python -m tests.mutants --table"


@pytest.mark.parametrize(
    ("where", "code"), [("gone", "x = 1"), ("here", "x = 2"), ("here", "x"), ("here", "y = 2"), ("here.x", "y")]
)
def test_code_that_is_not_there_just_once_is_refused(where: str, code: str) -> None:
    source = "def here():\n    x = 1\n    return x\n\n\ny = 2\n"

    with pytest.raises(Outdated):
        Edit("file.py", where, code, "").applied(source)
