"""The catalogue as the tables of docs/promises.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from tests.mutants.mutant import Edit, Mutant, Promise

LONGEST = 90  # characters of a line of code in a table


def tables(promises: Iterable[Promise]) -> str:
    """Return a heading and a table in Markdown for each promise."""
    return "\n".join(line for number, promise in enumerate(promises, 1) for line in _lines(number, promise))


def _lines(number: int, promise: Promise) -> Iterator[str]:
    yield f"### {number}. {promise.sentence}"
    yield ""
    yield "| statement | line that ensures it | test that fails without the line |"
    yield "| --- | --- | --- |"
    for mutant in promise.mutants:
        code = "; ".join(_shown(edit) for edit in mutant.edits)
        yield f"| {mutant.sentence} | {code} | {'; '.join(_tests(mutant))} |"
    yield ""


def _shown(edit: Edit) -> str:
    code = " ".join(edit.code.split()).strip(" ,")
    if len(code) > LONGEST:
        code = code[:LONGEST].rsplit(" ", 1)[0] + " …"
    return f"{_file(edit.file)} `{edit.where}`: `{code}`".replace("|", "\\|")


def _file(path: str) -> str:
    """Return the path below microblog/, as code."""
    return f"`{path.removeprefix('microblog/')}`"


def _tests(mutant: Mutant) -> Iterator[str]:
    file = None
    for test in mutant.tests:
        path, *_classes, function = test.split("::")
        name = function.partition("[")[0]
        yield f"`{name}`" if path == file else f"`{PurePosixPath(path).name}::{name}`"
        file = path
