"""Exports and imports in a bucket of a real server with the protocol of S3."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from urllib.request import urlopen

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.exports import cleanup
from microblog.exports.archive import archive_storage
from microblog.exports.models import Archive, archive_path, record
from microblog.extensions import db
from microblog.imports import uploads
from microblog.imports.models import Upload
from microblog.monitoring.status import check_status
from microblog.posts.models import Post
from microblog.taskqueue.models import Task
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.bucket import BUCKET, BucketServer
from tests.support.factories import BEGINNING, ended, only_job, write_posts
from tests.support.imports import archive, post
from tests.support.links import link_in
from tests.support.programs import run
from tests.support.servers import Worker, wait_for
from tests.support.smtp import SmtpServer

pytestmark = pytest.mark.exhaustive

GUNICORN = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py")
CELERY = ("celery", "-A", "tests.support.worker_app")
LARGE = 60_000  # posts; their archive has two parts


@pytest.fixture
def environment(environment: dict[str, str], bucket_server: BucketServer) -> dict[str, str]:
    """The environment of this test's processes, which store files in the bucket."""
    return environment | bucket_server.environment


def insert_posts(user: User, count: int) -> None:
    text = "A post that is as long as a post may be, so that the archive needs more than one part. ".ljust(140, "x")
    rows = [{"body": text, "timestamp": BEGINNING + timedelta(minutes=n), "user_id": user.id} for n in range(count)]
    db.session.execute(sa.insert(Post.__table__), [row | {"imported": False} for row in rows])  # type: ignore[arg-type]
    db.session.commit()


def archives(bucket_server: BucketServer) -> list[str]:
    return [key for key in bucket_server.objects() if key.endswith(".json")]


def test_export_is_mailed_as_link_to_bucket(
    susan: User,
    make_user: Callable[..., User],
    signed_in: Callable[..., FlaskClient],
    make_worker: Callable[..., Worker],
    smtp_server: SmtpServer,
) -> None:
    write_posts(susan, ["one", "two"])
    make_worker(EXPORT_ATTACHMENT_LIMIT="10")
    client = signed_in(susan)
    client.post("/export_posts")
    assert ended(susan).state == "SUCCESS"
    [message] = smtp_server.messages

    redirect = client.get(link_in(message))

    assert redirect.status_code == 302
    assert redirect.headers["Cache-Control"] == "no-store"
    assert "X-Amz-Expires=300" in redirect.location
    with urlopen(redirect.location) as download:
        assert [each["body"] for each in json.load(download)["posts"]] == ["one", "two"]
        assert download.headers["Content-Disposition"] == 'attachment; filename="posts.json"'
        assert download.headers["Content-Type"] == "application/json"
    assert signed_in(make_user("ben")).get(link_in(message)).status_code == 404


def test_small_archive_is_attached(susan: User, make_worker: Callable[..., Worker], smtp_server: SmtpServer) -> None:
    write_posts(susan, ["one"])
    make_worker()
    susan.launch_task("export_posts", "Export")
    db.session.commit()

    assert ended(susan).state == "SUCCESS"
    [message] = smtp_server.messages
    [attachment] = message.iter_attachments()
    assert b'"body":"one"' in attachment.get_content()


def test_form_may_lead_to_bucket(client: FlaskClient, bucket_server: BucketServer) -> None:
    policy = client.get("/auth/login").headers["Content-Security-Policy"]

    assert f"form-action 'self' {bucket_server.url};" in policy


def test_export_continues_after_kill(
    susan: User, make_worker: Callable[..., Worker], bucket_server: BucketServer, smtp_server: SmtpServer
) -> None:
    insert_posts(susan, LARGE)
    worker = make_worker(concurrency=1)
    task_id = susan.launch_task("export_posts", "Export").id
    db.session.commit()
    wait_for(lambda: bucket_server.uploads() == [f"exports/{task_id}.1.json"], what="the export is uploading")

    with worker.frozen():
        assert archives(bucket_server) == []
        [child] = worker.process.children()
        os.kill(child, signal.SIGKILL)

    def has_ended() -> bool:
        reconcile_all()
        return not only_job(susan).unfinished

    wait_for(has_ended, what="the job has ended")
    job = only_job(susan)
    assert (job.state, job.root.attempts, job.root.crashes) == ("SUCCESS", 2, 1)
    assert len(smtp_server.messages) == 1
    assert b"".join(archive_storage().read_chunks(f"{task_id}.2.json")).count(b'"body"') == LARGE
    assert bucket_server.uploads() == []
    assert archives(bucket_server) == [f"exports/{task_id}.2.json"]
    db.session.execute(sa.update(Archive).values(expires_at=BEGINNING))
    db.session.commit()
    assert cleanup.delete_expired() == 1
    assert archives(bucket_server) == []


def test_sweep_aborts_uploads_of_failed_export(app: Flask, susan: User, bucket_server: BucketServer) -> None:
    task_id = susan.launch_task("export_posts", "Export").id
    db.session.execute(sa.update(Task).where(Task.id == task_id).values(attempts=2, state="FAILURE"))
    record(id=task_id, attempt=2, user_id=susan.id, path=archive_path(task_id, 2), expires_at=utcnow() + timedelta(1))
    others = ["exports/other.1.json", f"exports/{task_id}.1.json.x", f"imports/{task_id}.1.json"]
    for key in [*others, f"exports/{task_id}.1.json", f"exports/{task_id}.2.json"]:
        bucket_server.client.create_multipart_upload(Bucket=BUCKET, Key=key)

    assert cleanup.delete_archives_of_failed_exports() == 1
    assert sorted(bucket_server.uploads()) == sorted(others)


def test_upload_is_imported(
    susan: User, signed_in: Callable[..., FlaskClient], make_worker: Callable[..., Worker], bucket_server: BucketServer
) -> None:
    make_worker()
    data = {"file": (io.BytesIO(archive(post("one"), post("two", 1))), "posts.json")}

    assert signed_in(susan).post("/import", data=data).status_code == 302

    job = ended(susan)
    assert (job.state, (job.root.result or {})["imported"]) == ("SUCCESS", 2)
    wait_for(lambda: archives(bucket_server) == [], what="the file is deleted")


def test_abandoned_upload_of_file_is_aborted(app: Flask, susan: User, bucket_server: BucketServer) -> None:
    upload = Upload(user_id=susan.id, expires_at=utcnow())
    db.session.add(upload)
    db.session.commit()
    bucket_server.client.create_multipart_upload(Bucket=BUCKET, Key=f"imports/{upload.path}")

    assert uploads.delete_expired() == 1
    assert bucket_server.uploads() == []


def test_unavailable_bucket_is_503(
    susan: User, signed_in: Callable[..., FlaskClient], bucket_server: BucketServer
) -> None:
    client = signed_in(susan)
    data = {"file": (io.BytesIO(archive(post("one"))), "posts.json")}

    with bucket_server.stopped():
        response = client.post("/import", data=data)

    assert response.status_code == 503
    assert "The storage of files does not answer right now." in response.text
    assert "Retry-After" in response.headers


@pytest.mark.parametrize("database", ["sqlite"])
def test_web_server_starts_while_service_hangs(
    app: Flask, environment: dict[str, str], start_web: Callable[[dict[str, str]], int]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # it accepts connections, and never answers
        start_web(environment | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{hanging.getsockname()[1]}"})

        wait_for(
            lambda: any("EXPORT_STORAGE_URL cannot be used: Read" in each.text for each in check_status(1).problems),
            what="the status names the web server",
        )


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("IMPORT_STORAGE_URL", "s3://no-such-bucket", "The specified bucket does not exist"),
        ("AWS_ACCESS_KEY_ID", None, "Unable to locate credentials"),
        ("AWS_ENDPOINT_URL", "localhost:9000", "Invalid endpoint: localhost:9000"),
        ("AWS_PROFILE", "nobody", "The config profile (nobody) could not be found"),
    ],
)
def test_worker_refuses_unusable_bucket(
    app: Flask, environment: dict[str, str], setting: str, value: str | None, reason: str
) -> None:
    if value is None:
        del environment[setting]
    else:
        environment[setting] = value

    result = run([*CELERY, "worker"], environment)

    assert result.returncode == 1
    named = setting if setting.startswith("IMPORT") else "EXPORT_STORAGE_URL"
    assert f"{named}: the storage cannot be used (" in result.stderr
    assert reason in result.stderr
    assert "Traceback" not in result.stderr
