"""A mutant: the program without one line that keeps a promise, and the tests that must fail."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class Outdated(Exception):
    """The catalogue refers to code that no longer exists or is not unique."""


@dataclass(frozen=True)
class Edit:
    """One change of the program: `code` within the definition `where` of `file` is replaced by `becomes`.

    `where` is the dotted name of a function, a class or an assigned name. `code` is a part of its text and occurs in it
    exactly once.
    """

    file: str
    where: str
    code: str
    becomes: str

    def apply(self, tree: Path) -> None:
        """Change the file in `tree`. Raises Outdated, or SyntaxError if the result is not valid Python."""
        path = tree / self.file
        source = self.applied(path.read_text())
        compile(source, self.file, "exec")
        path.write_text(source)

    def applied(self, source: str) -> str:
        """Return `source` with the change applied. Raises Outdated."""
        begin, end = _extent(source, self)
        found = source[begin:end].count(self.code)
        if found != 1:
            raise Outdated(f"{self.file}, {self.where}: {self.code!r} occurs {found} times instead of once")
        return source[:begin] + source[begin:end].replace(self.code, self.becomes) + source[end:]


@dataclass(frozen=True)
class Mutant:
    """A sentence that is false once all `edits` are made, and the tests (node ids) that then fail."""

    name: str
    sentence: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Promise:
    """One of the promises of Microblog, and a mutant for each line that keeps a part of it."""

    sentence: str
    mutants: tuple[Mutant, ...]


def _extent(source: str, edit: Edit) -> tuple[int, int]:
    """Return the begin and end of the definition in `source`, including its decorators."""
    body, node = ast.parse(source).body, None
    for name in edit.where.split("."):
        found = [child for child in body if name in _names(child)]
        if len(found) != 1:
            raise Outdated(f"{edit.file}: {edit.where} is defined {len(found)} times")
        [node] = found
        body = getattr(node, "body", [])
    assert node is not None
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    first = min(each.lineno for each in (node, *getattr(node, "decorator_list", [])))
    return starts[first - 1], starts[node.end_lineno or first]


def _names(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement defines."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            for target in targets:
                yield from (found.id for found in ast.walk(target) if isinstance(found, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
