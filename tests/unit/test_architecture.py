"""The arrows between the rooms: who may import from whom, as docs/architecture.md draws it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent.parent / "microblog"

# Every room, with the rooms that it may import from. What is no room is a module beside them, which all may use; of
# those that hold nothing but shared things none knows a room.
ARROWS = {
    "taskqueue": {"celeryconfig"},
    "celeryconfig": set(),
    "jobs": {"taskqueue"},
    "mail": {"jobs", "taskqueue"},
    "notifications": {"jobs", "taskqueue"},
    "accounts": {"mail", "notifications", "jobs", "taskqueue"},
    "posts": {"accounts", "notifications"},
    "search": {"posts", "jobs", "taskqueue"},
    "messages": {"accounts", "notifications"},
    "exports": {"accounts", "posts", "mail", "notifications", "jobs", "taskqueue"},
    "imports": {"accounts", "posts", "notifications", "jobs", "taskqueue"},
    "error_reports": {"accounts", "mail", "taskqueue"},
    "api": {"accounts", "posts", "search", "messages", "exports", "imports", "notifications", "jobs", "taskqueue"},
    "monitoring": {"accounts", "mail", "notifications", "jobs", "taskqueue", "celeryconfig"},
    "demo": {"accounts", "posts", "messages", "notifications"},
    "development": set(),
}


@pytest.mark.parametrize("room", sorted(ARROWS))
def test_a_room_imports_from_no_other_than_it_may(room: str) -> None:
    found = {
        f"{file.relative_to(HOUSE)} imports {other}"
        for file in (HOUSE / room).rglob("*.py")
        for other in _imported(file)
        if other in ARROWS and other not in {room, *ARROWS[room]}
    }

    assert found == set()


def test_what_the_rooms_share_knows_no_room() -> None:
    found = {
        f"{file.name} imports {room}"
        for file in HOUSE.glob("*.py")
        if file.name != "__init__.py"  # which wires them
        for room in _imported(file) & ARROWS.keys()
    }

    assert found == set()


def test_every_room_is_in_the_table_and_the_arrows_run_one_way() -> None:
    rooms = {folder.name for folder in HOUSE.iterdir() if (folder / "__init__.py").exists()}
    assert rooms == ARROWS.keys()

    left = dict(ARROWS)
    while lowest := {room for room, below in left.items() if not below & left.keys()}:
        left = {room: below for room, below in left.items() if room not in lowest}
    assert left == {}, "these import each other"


def _imported(file: Path) -> set[str]:
    """The rooms and modules of ours that a file imports from, wherever in it: by their first name."""
    return {name.split(".")[1] for name in _names(file) if name.startswith("microblog.")}


def _names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
