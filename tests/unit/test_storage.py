"""Storage: a file is complete or does not exist."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from microblog.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "archives"))


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "archives").glob("*") if path.is_file())


def test_new_file_has_size_and_checksum(storage: Storage, tmp_path: Path) -> None:
    with storage.new("a.json") as file:
        file.write([b"one", b"two"])

    assert file.size == 6
    assert file.sha256 == hashlib.sha256(b"onetwo").hexdigest()
    assert names(tmp_path) == ["a.json"]
    assert storage.parts() == []
    assert b"".join(storage.read_chunks("a.json")) == b"onetwo"


def test_file_is_invisible_until_complete(storage: Storage, tmp_path: Path) -> None:
    with storage.new("a.json") as file:
        file.write([b"half"])
        assert not storage.exists("a.json")
        assert storage.parts() == ["parts/a.json"]

    assert storage.exists("a.json")


def test_failed_write_leaves_no_file(storage: Storage, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError), storage.new("a.json") as file:
        file.write(chunks())

    assert names(tmp_path) == []
    assert storage.parts() == []


def test_error_after_write_leaves_no_file(storage: Storage, tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with storage.new("a.json") as file:
            file.write([b"whole"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()

    assert names(tmp_path) == []
    assert storage.parts() == []


def test_delete_is_idempotent(storage: Storage) -> None:
    with storage.new("a.json") as file:
        file.write([b"x"])

    storage.delete("a.json")
    storage.delete("a.json")

    assert not storage.exists("a.json")
