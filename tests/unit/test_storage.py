"""Storage: a file is complete or does not exist."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microblog import bucket
from microblog.bucket import PART_SIZE
from microblog.storage import PARTS, Storage, open_storage
from tests.support.bucket import BucketServer


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.exhaustive)])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BucketServer | None:
    """The server of the bucket, or None if the storage is a folder."""
    if request.param == "folder":
        return None
    server: BucketServer = request.getfixturevalue("bucket_server")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def storage(server: BucketServer | None, tmp_path: Path) -> Storage:
    return open_storage(server.environment["EXPORT_STORAGE_URL"] if server else str(tmp_path))


@pytest.fixture
def incomplete(server: BucketServer | None, tmp_path: Path) -> Callable[[], list[str]]:
    """Return the names of the incomplete files."""

    def names() -> list[str]:
        paths = server.uploads() if server else (tmp_path / PARTS).glob("*")
        return sorted(Path(path).name for path in paths)

    return names


def test_new_file_has_size_and_checksum(storage: Storage, incomplete: Callable[[], list[str]]) -> None:
    with storage.new("a.json") as file:
        file.write([b"one", b"two"])

    assert file.size == 6
    assert file.sha256 == hashlib.sha256(b"onetwo").hexdigest()
    assert incomplete() == []
    assert b"".join(storage.read_chunks("a.json")) == b"onetwo"


def test_file_is_invisible_until_complete(storage: Storage, incomplete: Callable[[], list[str]]) -> None:
    with storage.new("a.json") as file:
        file.write([b"half"])
        assert not storage.exists("a.json")
        assert incomplete() == ["a.json"]

    assert storage.exists("a.json")


def test_failed_write_leaves_no_file(storage: Storage, incomplete: Callable[[], list[str]]) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError

    with pytest.raises(RuntimeError), storage.new("a.json") as file:
        file.write(chunks())

    assert not storage.exists("a.json")
    assert incomplete() == []


def test_error_after_write_leaves_no_file(storage: Storage, incomplete: Callable[[], list[str]]) -> None:
    def write_and_fail() -> None:
        with storage.new("a.json") as file:
            file.write([b"whole"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()

    assert not storage.exists("a.json")
    assert incomplete() == []


def test_deleted_file_does_not_appear(storage: Storage, incomplete: Callable[[], list[str]]) -> None:
    def write_what_is_deleted() -> None:
        with storage.new("a.json") as file:
            file.write([b"half"])
            storage.delete("a.json")
            assert incomplete() == []

    with pytest.raises(OSError):  # noqa: PT011 - FileNotFoundError, but moto's server answers 500 instead of 404
        write_what_is_deleted()

    assert not storage.exists("a.json")


def test_delete_keeps_other_incomplete_files(storage: Storage, incomplete: Callable[[], list[str]]) -> None:
    with storage.new("a.json"), storage.new("a.json2"):
        storage.delete("a")
        assert incomplete() == ["a.json", "a.json2"]


def test_large_file_is_written_in_parts(storage: Storage) -> None:
    chunk = bytes(range(256)) * (PART_SIZE // 256 // 2)

    with storage.new("a.json") as file:
        file.write([chunk] * 5)

    with storage.open("a.json") as stored:
        assert hashlib.sha256(stored.read()).hexdigest() == file.sha256
        stored.seek(PART_SIZE)
        assert stored.read() == chunk * 3


def test_missing_file_is_not_found(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        next(storage.read_chunks("a.json"))


def test_delete_is_idempotent(storage: Storage) -> None:
    with storage.new("a.json") as file:
        file.write([b"x"])

    storage.delete("a.json")
    storage.delete("a.json")

    assert not storage.exists("a.json")


AWS = {"AWS_DEFAULT_REGION": "il-central-1", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
MINIO = AWS | {"AWS_ENDPOINT_URL": "http://minio:9000"}


@pytest.fixture
def set_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[dict[str, str], str], None]]:
    """Return a function that sets only these variables and this configuration file of AWS."""

    def set_variables(variables: dict[str, str], configuration: str) -> None:
        (tmp_path / "config").write_text(configuration)
        for name in {*os.environ, *AWS} - {*variables}:
            if name.startswith("AWS_"):
                monkeypatch.delenv(name, raising=False)
        for name, value in (variables | {"AWS_CONFIG_FILE": str(tmp_path / "config")}).items():
            monkeypatch.setenv(name, value)
        bucket._cached_client.cache_clear()

    yield set_variables
    bucket._cached_client.cache_clear()


@pytest.mark.parametrize(
    ("variables", "configuration", "origin"),
    [
        (AWS, "", "https://archives.s3.il-central-1.amazonaws.com"),
        (AWS, "[default]\ns3 =\n  addressing_style = path\n", "https://s3.il-central-1.amazonaws.com"),
        (MINIO, "", "http://minio:9000"),
        (MINIO, "[default]\ns3 =\n  addressing_style = virtual\n", "http://archives.minio:9000"),
    ],
)
def test_download_url_has_host_of_region_or_endpoint(
    set_aws: Callable[[dict[str, str], str], None], variables: dict[str, str], configuration: str, origin: str
) -> None:
    set_aws(variables, configuration)
    storage = open_storage("s3://archives/prefix/")

    url = storage.download_url("a.json", "posts.json", "application/json") or ""

    assert storage.download_origin() == origin
    assert url.startswith(f"{origin}/")
    assert "/prefix/a.json?" in url


def test_bucket_of_aws_requires_region(set_aws: Callable[[dict[str, str], str], None]) -> None:
    set_aws({name: value for name, value in AWS.items() if "KEY" in name}, "")

    with pytest.raises(PermissionError, match="region"):
        open_storage("s3://archives").exists("a.json")
