"""A file in the storage is whole, or not there."""

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


def test_a_file_is_stored_with_its_size_and_checksum(storage: Storage, tmp_path: Path) -> None:
    with storage.new("a.json") as file:
        file.write([b"one", b"two"])

    assert file.size == 6
    assert file.sha256 == hashlib.sha256(b"onetwo").hexdigest()
    assert names(tmp_path) == ["a.json"]
    assert storage.parts() == []
    assert b"".join(storage.read_chunks("a.json")) == b"onetwo"


def test_a_file_is_not_seen_before_it_is_whole(storage: Storage, tmp_path: Path) -> None:
    with storage.new("a.json") as file:
        file.write([b"half"])
        assert not storage.exists("a.json")
        assert storage.parts() == ["parts/a.json"]

    assert storage.exists("a.json")


def test_a_write_that_fails_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError), storage.new("a.json") as file:
        file.write(chunks())

    assert names(tmp_path) == []
    assert storage.parts() == []


def test_a_whole_file_whose_writer_changes_its_mind_leaves_nothing(storage: Storage, tmp_path: Path) -> None:
    def write_and_regret() -> None:
        with storage.new("a.json") as file:
            file.write([b"whole"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_regret()

    assert names(tmp_path) == []
    assert storage.parts() == []


def test_deleting_twice_is_no_error(storage: Storage) -> None:
    with storage.new("a.json") as file:
        file.write([b"x"])

    storage.delete("a.json")
    storage.delete("a.json")

    assert not storage.exists("a.json")
