"""Where archives are kept: any fsspec filesystem, a local folder by default."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import fsspec
from flask import current_app

CHUNK = 1024 * 1024  # bytes read at once
PARTS = "parts"  # the folder of files that are not whole yet


@dataclass(frozen=True)
class Stored:
    """A file that is whole: its size in bytes and its SHA-256 in hex."""

    size: int
    sha256: str


class Storage:
    """Files under one root, each visible only once it is whole."""

    def __init__(self, url: str) -> None:
        """`url`: a folder, or any URL that fsspec has a filesystem for (``s3://bucket/prefix``)."""
        self._files, self._root = fsspec.core.url_to_fs(url, auto_mkdir=True)

    def write(self, path: str, chunks: Iterable[bytes], *, attempt: int) -> Stored:
        """Write `chunks` to a part of this `attempt`, out of sight, then move it to `path`.

        If writing fails, or `chunks` raises, nothing is left behind.
        """
        part = self._full(f"{PARTS}/{path}.{attempt}")
        digest, size = hashlib.sha256(), 0
        try:
            with self._files.open(part, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
            self._files.mv(part, self._full(path))
        except BaseException:
            if self._files.exists(part):
                self._files.rm_file(part)
            raise
        return Stored(size, digest.hexdigest())

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
        """Whether there is a whole file at `path`."""
        return bool(self._files.exists(self._full(path)))

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


def current_storage() -> Storage:
    """The storage that ``EXPORT_STORAGE_URL`` names."""
    return Storage(current_app.config["EXPORT_STORAGE_URL"])
