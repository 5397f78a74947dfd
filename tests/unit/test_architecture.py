"""Allowed imports between the packages, as drawn in docs/architecture.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from microblog import models
from microblog.database import Base

ROOT = Path(__file__).resolve().parent.parent.parent / "microblog"

PACKAGES = {folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").exists()}
FEATURE = {"accounts", "posts", "mail", "notifications", "jobs", "taskqueue"}  # for those not listed
# Each package with the packages that it may import. Every package may import the modules beside the packages; these
# import no package, except for those in COMPOSING.
ALLOWED: dict[str, set[str]] = {
    "taskqueue": set(),
    "jobs": {"taskqueue"},
    "mail": {"jobs", "taskqueue"},
    "notifications": {"jobs", "taskqueue"},
    "accounts": {"mail", "notifications", "jobs", "taskqueue"},
    "posts": {"accounts", "notifications"},
    "search": {"posts", "jobs", "taskqueue"},
    "messages": {"accounts", "notifications"},
    "exports": FEATURE,
    "imports": {"accounts", "posts", "notifications", "jobs", "taskqueue"},
    "error_reports": {"accounts", "mail", "taskqueue"},
    "api": {"accounts", "posts", "search", "messages", "exports", "imports", "notifications", "jobs", "taskqueue"},
    "monitoring": {"accounts", "mail", "notifications", "jobs", "taskqueue"},
    "demo": {"accounts", "posts", "messages", "notifications"},
    "development": set(),
}
ALLOWED |= dict.fromkeys(PACKAGES - ALLOWED.keys(), FEATURE)
COMPOSING = {"__init__.py", "models.py"}


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_package_imports_only_allowed_packages(package: str) -> None:
    found = {
        f"{file.relative_to(ROOT)} imports {other}"
        for file in (ROOT / package).rglob("*.py")
        for other in _imported(file)
        if other in ALLOWED and other not in {package, *ALLOWED[package]}
    }

    assert found == set()


def test_only_transitions_update_task_rows() -> None:
    found = {
        str(file.relative_to(ROOT))
        for file in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node).startswith(("sa.update(Task)", "sa.update(task_table)"))
    }

    assert found == {"taskqueue/transitions.py"}


@pytest.mark.parametrize("package", sorted(ALLOWED.keys() - {"taskqueue"}))
def test_package_does_not_read_celery_request(package: str) -> None:
    """Tasks read JobTask's own properties; calls such as ``pool.request(…)`` are something else."""
    found = set()
    for file in (ROOT / package).rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        called = {node.func for node in nodes if isinstance(node, ast.Call)}
        read = {node for node in nodes if isinstance(node, ast.Attribute) and node.attr == "request"} - called
        found |= {f"{file.relative_to(ROOT)}:{node.lineno}" for node in read}

    assert found == set()


def test_shared_modules_import_no_package() -> None:
    found = {
        f"{file.name} imports {package}"
        for file in ROOT.glob("*.py")
        if file.name not in COMPOSING
        for package in _imported(file) & ALLOWED.keys()
    }

    assert found == set()


def test_packages_do_not_import_models_module() -> None:
    assert {str(file.relative_to(ROOT)) for file in ROOT.rglob("*.py") if "models" in _imported(file)} == set()


def test_models_module_exports_every_table() -> None:
    exported = {getattr(models, name) for name in models.__all__}

    assert exported == {mapper.class_ for mapper in Base.registry.mappers}


def test_packages_exist_and_are_acyclic() -> None:
    assert ALLOWED.keys() == PACKAGES

    remaining = dict(ALLOWED)
    while lowest := {package for package, imported in remaining.items() if not imported & remaining.keys()}:
        remaining = {package: imported for package, imported in remaining.items() if package not in lowest}
    assert remaining == {}, "these packages import each other"


def _imported(file: Path) -> set[str]:
    """Return the first names below `microblog` of all modules that a file imports, at the top or in a function."""
    return {name.split(".")[1] for name in _names(file) if name.startswith("microblog.")}


def _names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
