"""File storage: a local folder (FolderStorage), or a bucket of S3 or of a compatible service (bucket.py)."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

CHUNK = 1024 * 1024  # bytes read at once
PARTS = "parts"  # the folder of files that are not complete yet
#: Errors that last until an operator corrects the setting, the permissions or the credentials.
REFUSED = (PermissionError, NotADirectoryError, FileExistsError)


class StorageUnavailable(OSError):
    """The service of the storage cannot be reached, or answers with an error of its own."""


class NewFile:
    """A file that is being written; `size` (bytes) and `sha256` (hex) describe what has been written so far."""

    def __init__(self, append: Callable[[bytes], object]) -> None:
        self.size = 0
        self._append = append
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, chunks: Iterable[bytes]) -> None:
        """Append `chunks`."""
        for chunk in chunks:
            self._append(chunk)
            self._digest.update(chunk)
            self.size += len(chunk)


class Storage(ABC):
    """Files under one root, each visible only once it is complete.

    All methods raise OSError: StorageUnavailable, or one of REFUSED.
    """

    @abstractmethod
    def new(self, path: str) -> AbstractContextManager[NewFile]:
        """Open a new file for writing; it appears at `path` when the block ends.

        If the block raises, the file is deleted. Raises FileNotFoundError if another process has deleted it meanwhile.
        """

    @abstractmethod
    def open(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Open the file at `path` for reading and seeking. Raises FileNotFoundError."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Return whether a complete file exists at `path`."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete the file at `path`, complete or not, if there is one; a process that is still writing it fails."""

    @abstractmethod
    def download_url(self, path: str, file_name: str, content_type: str) -> str | None:
        """Return a URL from which anyone may download the file at `path` for five minutes, as `file_name`.

        None if the web server itself has to send the file.
        """

    @abstractmethod
    def download_origin(self) -> str | None:
        """Return the scheme and host of all download URLs, or None if there are none; needs no network."""

    def read_chunks(self, path: str) -> Iterator[bytes]:
        """Yield the content of the file at `path` in chunks. The first one raises FileNotFoundError."""
        with self.open(path) as file:
            while chunk := file.read(CHUNK):
                yield chunk


class FolderStorage(Storage):
    """The files in a folder, which is created when it is first written to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def new(self, path: str) -> Iterator[NewFile]:
        """Write the file into the folder ``PARTS``, and move it from there when it is complete."""
        part = self._part(path)
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                yield NewFile(file.write)
            part.replace(self._folder / path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def open(self, path: str) -> AbstractContextManager[IO[bytes]]:
        """Open the file itself."""
        return (self._folder / path).open("rb")

    def exists(self, path: str) -> bool:
        """Return whether the file exists."""
        return (self._folder / path).exists()

    def delete(self, path: str) -> None:
        """Delete the file, in the folder ``PARTS`` first: from there its writer could still move it."""
        self._part(path).unlink(missing_ok=True)
        (self._folder / path).unlink(missing_ok=True)

    def download_url(self, path: str, file_name: str, content_type: str) -> None:
        """Return None: nothing else serves the folder."""

    def download_origin(self) -> None:
        """Return None: there are no download URLs."""

    def _part(self, path: str) -> Path:
        return self._folder / PARTS / path


def open_storage(url: str, *, quick: bool = False) -> Storage:
    """Return the storage at `url`, a folder or ``s3://bucket/prefix``.

    With `quick`, a service that does not answer is unavailable after a few seconds, without retries.
    """
    if url.startswith("s3://"):
        from microblog.bucket import BucketStorage  # boto3 takes a third of a second to import

        return BucketStorage(url, quick)
    return FolderStorage(Path(url))
