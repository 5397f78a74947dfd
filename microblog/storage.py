"""File storage on any fsspec filesystem, by default a local folder."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import fsspec

CHUNK = 1024 * 1024  # bytes read at once
PARTS = "parts"  # the folder of files that are not whole yet


class NewFile:
    """A file that is being written: `size`, in bytes, and `sha256`, in hex, tell of what it has so far."""

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
    """Files under one root, each visible only once it is whole."""

    def __init__(self, url: str) -> None:
        """`url`: a folder, or any URL that fsspec has a filesystem for (``s3://bucket/prefix``)."""
        self._files, self._root = fsspec.core.url_to_fs(url, auto_mkdir=True)

    @contextmanager
    def new(self, path: str) -> Iterator[NewFile]:
        """A file to be written, out of sight among the parts; moved to `path` when the block ends.

        If the block raises, nothing is left behind.
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
        """The file at `path`, for reading. Raises FileNotFoundError."""
        with self._files.open(self._full(path), "rb") as file:
            yield file

    def read_chunks(self, path: str) -> Iterator[bytes]:
        """The file at `path`, a piece at a time. Raises FileNotFoundError when first asked."""
        with self.open(path) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def exists(self, path: str) -> bool:
        """Return whether there is a whole file at `path`."""
        return bool(self._files.exists(self._full(path)))

    def size(self, path: str) -> int:
        """The size of the file at `path` in bytes. Raises FileNotFoundError."""
        return int(self._files.size(self._full(path)))

    def delete(self, path: str) -> None:
        """Remove the file at `path`; one that is gone already is no error."""
        if self.exists(path):
            self._files.rm_file(self._full(path))

    def parts(self) -> list[str]:
        """The paths of all files that are being written, or whose writer died."""
        folder = self._full(PARTS)
        if not self._files.exists(folder):
            return []
        names = (posixpath.basename(found) for found in self._files.ls(folder, detail=False))
        return sorted(posixpath.join(PARTS, name) for name in names)

    def _full(self, path: str) -> str:
        return posixpath.join(self._root, path)
