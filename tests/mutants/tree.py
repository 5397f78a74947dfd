"""Temporary copies of the project for mutants."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".venv", ".git", "instance", "__pycache__", ".*_cache", ".hypothesis", "*.rdb")


@contextlib.contextmanager
def copied_tree() -> Iterator[Path]:
    """Provide a temporary copy of the project on disk, without the files that runs create."""
    folder = Path(tempfile.mkdtemp(prefix="microblog-mutant-"))
    tree = folder / ROOT.name
    try:
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT, symlinks=True)
        (tree / ".venv").symlink_to(ROOT / ".venv")
        yield tree
    finally:
        shutil.rmtree(folder, ignore_errors=True)
