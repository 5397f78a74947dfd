"""File storage on any fsspec filesystem, by default a local folder."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import fsspec

CHUNK = 1024 * 1024  # bytes read at once
PARTS = "parts"  # the folder of files that are not complete yet


class NewFile:
    """A file that is being written; `size` (bytes) and `sha256` (hex) describe what has been written so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self.size = 0
        self._file = file
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, chunks: Iterable[bytes]) -> None:
        """Append `chunks`."""
        for chunk in chunks:
            self._file.write(chunk)
            self._digest.update(chunk)
            self.size += len(chunk)


class Storage:
    """Files under one root, each visible only once it is complete."""

    def __init__(self, url: str) -> None:
        """Use `url`, a folder or any URL that fsspec supports (``s3://bucket/prefix``)."""
        self._files, self._root = fsspec.core.url_to_fs(url, auto_mkdir=True)

    @contextmanager
    def new(self, path: str) -> Iterator[NewFile]:
        """Open a new file for writing; it is moved from the folder ``PARTS`` to `path` when the block ends.

        If the block raises, the file is deleted.
        """
        part = self._full(f"{PARTS}/{path}")
        try:
            with self._files.open(part, "wb") as file:
                yield NewFile(file)
            self._files.mv(part, self._full(path))
        except BaseException:
            if self._files.exists(part):
                self._files.rm_file(part)
            raise

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Open the file at `path` for reading. Raises FileNotFoundError."""
        with self._files.open(self._full(path), "rb") as file:
            yield file

    def read_chunks(self, path: str) -> Iterator[bytes]:
        """Yield the content of the file at `path` in chunks. The first one raises FileNotFoundError."""
        with self.open(path) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def exists(self, path: str) -> bool:
        """Return whether a complete file exists at `path`."""
        return bool(self._files.exists(self._full(path)))

    def size(self, path: str) -> int:
        """Return the size of the file at `path` in bytes. Raises FileNotFoundError."""
        return int(self._files.size(self._full(path)))

    def delete(self, path: str) -> None:
        """Delete the file at `path`, if it exists."""
        if self.exists(path):
            self._files.rm_file(self._full(path))

    def parts(self) -> list[str]:
        """Return the paths of all incomplete files: still being written, or left by a process that was killed."""
        folder = self._full(PARTS)
        if not self._files.exists(folder):
            return []
        names = (posixpath.basename(file) for file in self._files.ls(folder, detail=False))
        return sorted(posixpath.join(PARTS, name) for name in names)

    def _full(self, path: str) -> str:
        return posixpath.join(self._root, path)
