"""Storage in a bucket of S3, or of any service with the same protocol (``AWS_ENDPOINT_URL``).

boto3 finds credentials, region and endpoint as every program for AWS does: in ``AWS_*`` variables, in the files of the
AWS command line tools, or from the role of the machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO, Any
from urllib.parse import urlsplit

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from s3transfer.exceptions import RetriesExceededError

from microblog.storage import NewFile, Storage, StorageUnavailable

PART_SIZE = 8 * 1024 * 1024  # bytes; S3 takes 10,000 parts, so that a file may have 78 GB
DOWNLOAD_LIFETIME = 300  # seconds for which a download URL is valid
_NOT_FOUND = ("NoSuchKey", "NoSuchUpload", "404")
_LATER = (408, 429)  # HTTP statuses that ask the client to repeat its request later
# Settings of AWS that are wrong; boto3 raises ValueError for an endpoint that is no URL.
_WRONG_SETTINGS = (
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ValueError,
)
# Timeouts in seconds.
_PATIENT: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 30, "retries": {"mode": "standard"}}
_QUICK: dict[str, Any] = {"connect_timeout": 2, "read_timeout": 3, "retries": {"total_max_attempts": 1}}


class BucketStorage(Storage):
    """The files of a bucket whose keys begin with a prefix."""

    def __init__(self, url: str, quick: bool) -> None:
        """Use `url`, ``s3://bucket/prefix``; `quick` is explained at open_storage()."""
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        self._bucket, self._prefix = parts.netloc, f"{prefix}/" if prefix else ""
        self._quick = quick

    @contextmanager
    def new(self, path: str) -> Iterator[NewFile]:
        """Upload the file in parts while it is written; the service makes the object when it has the last."""
        upload, parts, buffer = self._object(path), list[dict[str, Any]](), bytearray()
        with _os_errors():
            upload["UploadId"] = self._client.create_multipart_upload(**upload)["UploadId"]

        def send(size: int) -> None:
            part = {"PartNumber": len(parts) + 1}
            with _os_errors():
                sent = self._client.upload_part(**upload, **part, Body=bytes(buffer[:size]))
            parts.append(part | {"ETag": sent["ETag"]})
            del buffer[:size]

        def append(chunk: bytes) -> None:
            buffer.extend(chunk)
            while len(buffer) > PART_SIZE:  # not at once: some services require that all parts but the last are equal
                send(PART_SIZE)

        try:
            yield NewFile(append)
            send(len(buffer))
            with _os_errors():
                self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            with contextlib.suppress(OSError), _os_errors():  # otherwise delete() does it
                self._client.abort_multipart_upload(**upload)
            raise

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """Download the file into a temporary one, since an import may read it for longer than a connection lasts."""
        with tempfile.TemporaryFile() as file:
            with _os_errors():
                self._client.download_fileobj(self._bucket, self._prefix + path, file)
            file.seek(0)
            yield file

    def exists(self, path: str) -> bool:
        """Return whether the object exists."""
        try:
            with _os_errors():
                self._client.head_object(**self._object(path))
        except FileNotFoundError:
            return False
        return True

    def delete(self, path: str) -> None:
        """Delete the object, after aborting its uploads, which deletes their parts."""
        target = self._object(path)
        with _os_errors():
            # MinIO lists the uploads of one key, but not those of all keys that begin with a prefix.
            listing = self._client.get_paginator("list_multipart_uploads")
            pages = listing.paginate(Bucket=self._bucket, Prefix=target["Key"])
            uploads = [upload for page in pages for upload in page.get("Uploads", ()) if upload["Key"] == target["Key"]]
        for upload in uploads:
            with contextlib.suppress(FileNotFoundError), _os_errors():  # completed or aborted meanwhile
                self._client.abort_multipart_upload(**target, UploadId=upload["UploadId"])
        with _os_errors():
            self._client.delete_object(**target)

    def download_url(self, path: str, file_name: str, content_type: str) -> str:
        """Return a presigned URL."""
        disposition = f'attachment; filename="{file_name}"'
        parameters = {"ResponseContentDisposition": disposition, "ResponseContentType": content_type}
        with _os_errors():
            url: str = self._client.generate_presigned_url(
                "get_object", Params=self._object(path) | parameters, ExpiresIn=DOWNLOAD_LIFETIME
            )
        return url

    def download_origin(self) -> str:
        """Return the origin of an unsigned URL, which needs no credentials."""
        with _os_errors():
            parts = urlsplit(
                _cached_client(UNSIGNED, self._quick).generate_presigned_url("get_object", Params=self._object("x"))
            )
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def _client(self) -> Any:
        return _cached_client("s3v4", self._quick)

    def _object(self, path: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + path}


@cache
def _cached_client(signature_version: Any, quick: bool) -> Any:
    """Return this process's client, which may be used by several threads."""
    session = boto3.session.Session()
    config = Config(
        signature_version=signature_version,
        # Other services do not know the checksums that boto3 adds since 2025.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **(_QUICK if quick else _PATIENT),
    )
    client = session.client("s3", config=config)
    if not re.fullmatch(r"s3[.-](.+\.)?amazonaws\.com(\.cn)?", urlsplit(client.meta.endpoint_url).hostname or ""):
        return client
    if session.region_name is None:
        raise NoRegionError
    if "addressing_style" in (client.meta.config.s3 or {}):
        return client
    # By default, presigned URLs name the host of all regions, which does not serve those opened since 2019.
    return session.client("s3", config=config.merge(Config(s3={"addressing_style": "virtual"})))


logging.getLogger("botocore").setLevel(logging.WARNING)  # at INFO it logs where it has found each setting
os.register_at_fork(after_in_child=_cached_client.cache_clear)  # a child must not use its parent's connections


@contextmanager
def _os_errors() -> Iterator[None]:
    """Raise FileNotFoundError, PermissionError or StorageUnavailable in place of the errors of boto3."""
    try:
        yield
    except ClientError as error:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
        if code in _NOT_FOUND:
            raise FileNotFoundError(str(error)) from error
        if 400 <= status < 500 and status not in _LATER:
            raise PermissionError(str(error)) from error
        raise StorageUnavailable(str(error)) from error
    except _WRONG_SETTINGS as error:
        raise PermissionError(str(error)) from error
    except BotoCoreError as error:
        raise StorageUnavailable(str(error)) from error
    except RetriesExceededError as error:
        raise StorageUnavailable(str(error.last_exception)) from error
