"""A real server with the protocol of S3, and a bucket in it; run as a program, this module is the server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import boto3

from microblog.development.process_manager import ManagedProcess
from tests.support.servers import TIMEOUT, free_port

BUCKET = "archives"


class BucketServer:
    """Moto's server, whose data is in its memory. `environment` are the variables of programs that use it."""

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "EXPORT_STORAGE_URL": f"s3://{BUCKET}/exports",
            "IMPORT_STORAGE_URL": f"s3://{BUCKET}/imports",
        }
        self._command = [sys.executable, "-m", "tests.support.bucket", "-H", "127.0.0.1", "-p", str(port)]

    @contextlib.contextmanager
    def running(self) -> Iterator[BucketServer]:
        """Run the server during the block."""
        self._start()
        try:
            yield self
        finally:
            self._process.kill()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the server during the block and start it again, without its data."""
        self._process.kill()
        try:
            yield
        finally:
            self._start()

    def reset(self) -> None:
        """Delete all data, and create an empty bucket."""
        urlopen(f"{self.url}/moto-api/reset", data=b"").close()
        self.client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})

    @property
    def client(self) -> Any:
        """A client of boto3 for the server."""
        keys = {name.lower(): self.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        return boto3.client("s3", endpoint_url=self.url, region_name="eu-central-1", **keys)

    def objects(self) -> list[str]:
        """Return the keys of all objects."""
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ())]

    def uploads(self) -> list[str]:
        """Return the keys of all uploads that are neither completed nor aborted."""
        return [upload["Key"] for upload in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())]

    def _start(self) -> None:
        self._process = ManagedProcess(self._command, os.environ, stdout=subprocess.DEVNULL)
        self._process.wait_until(self._answers, "moto's server", TIMEOUT)

    def _answers(self) -> bool:
        with contextlib.suppress(URLError, ConnectionError):
            urlopen(f"{self.url}/moto-api/", timeout=2).close()
            return True
        return False


def _main() -> None:
    """Run moto's server with the rule of MinIO that uploads are listed for a key, not for the beginning of keys."""
    from moto.s3.responses import S3Response
    from moto.server import main

    list_by_prefix = S3Response.list_multipart_uploads

    def list_by_key(response: S3Response) -> Any:
        uploads = response.backend.list_multipart_uploads(response.bucket_name).values()
        if response.querystring.get("prefix", [None])[0] not in [None, *(upload.key_name for upload in uploads)]:
            response.querystring["prefix"] = ["no key begins with this"]
        return list_by_prefix(response)

    S3Response.list_multipart_uploads = list_by_key  # type: ignore[method-assign, assignment]
    main()


if __name__ == "__main__":
    _main()
