"""A file in the storage is whole, or not there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from microblog.exports.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "archives"))


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "archives").glob("*") if path.is_file())


def test_a_file_is_stored_with_its_size_and_checksum(storage: Storage, tmp_path: Path) -> None:
    stored = storage.write("a.json", [b"one", b"two"], attempt=1)

    assert stored.size == 6
    assert stored.sha256 == hashlib.sha256(b"onetwo").hexdigest()
    assert names(tmp_path) == ["a.json"]
    assert storage.parts() == []
    assert b"".join(storage.read_chunks("a.json")) == b"onetwo"


def test_a_file_is_not_seen_before_it_is_whole(storage: Storage, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        assert not storage.exists("a.json")
        assert storage.parts() == ["parts/a.json.1"]

    storage.write("a.json", chunks(), attempt=1)

    assert storage.exists("a.json")


def test_a_write_that_fails_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        storage.write("a.json", chunks(), attempt=1)

    assert names(tmp_path) == []


def test_deleting_twice_is_no_error(storage: Storage) -> None:
    storage.write("a.json", [b"x"], attempt=1)

    storage.delete("a.json")
    storage.delete("a.json")

    assert not storage.exists("a.json")
