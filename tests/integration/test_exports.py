"""The export: a page, two tasks, an archive and one mail."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.exports import cleanup
from microblog.exports.archive import BATCH, archives_of_job, read_posts, to_json
from microblog.exports.emails import download_url
from microblog.exports.models import Archive, archive_path, record
from microblog.extensions import db
from microblog.jobs.models import newest_jobs
from microblog.jobs.services import cancel_job
from microblog.storage import PARTS
from microblog.taskqueue.errors import Cancelled, ClaimLost
from microblog.taskqueue.interface import ROW_INTERVAL, Progress
from microblog.taskqueue.models import Task
from tests.support.clients import without_csrf_tokens
from tests.support.factories import BEGINNING, ended, only_job, write_posts
from tests.support.links import link_in
from tests.support.servers import Worker, wait_for
from tests.support.smtp import SmtpServer

BODIES = ["plain", "line\nbreak", "“quotes” & <tags>", "한국어 🎉", "x" * 140]


def bodies(count: int) -> list[str]:
    """Return bodies of posts, with everything that JSON or HTML must escape."""
    return [BODIES[n % len(BODIES)][:130] + f" {n}" for n in range(count)]


def expected_posts(count: int) -> list[dict[str, str]]:
    return [
        {"body": body, "timestamp": (BEGINNING + timedelta(hours=n)).isoformat().replace("+00:00", "Z")}
        for n, body in enumerate(bodies(count))
    ]


def attachment(smtp_server: SmtpServer) -> bytes:
    [message] = smtp_server.messages
    [part] = message.iter_attachments()
    assert part.get_filename() == "posts.json"
    assert part.get_content_type() == "application/json"
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


def files(app: Flask) -> list[str]:
    return sorted(path.name for path in Path(app.config["EXPORT_STORAGE_URL"]).rglob("*.json"))


@pytest.mark.both_databases
def test_export_is_built_stored_and_mailed(
    app: Flask, susan: User, signed_in: Callable[..., FlaskClient], worker: Worker, smtp_server: SmtpServer
) -> None:
    write_posts(susan, bodies(250))
    client = signed_in(susan)

    response = client.post("/export_posts", follow_redirects=True)
    assert response.status_code == 200
    assert "Your export has started" in response.text
    assert "Exporting your posts" in response.text

    job = ended(susan)
    assert [step.state for step in job.steps] == ["SUCCESS", "SUCCESS"]
    [message] = smtp_server.messages
    assert message["Subject"] == "[Microblog] Your blog posts"
    assert message["To"] == "susan@example.com"
    assert message["Message-ID"] == f"<{job.steps[1].id}@localhost>"
    assert {part.get_content_type() for part in message.walk()} >= {"text/plain", "text/html"}
    assert json.loads(attachment(smtp_server)) == {"posts": expected_posts(250)}
    assert len(attachment(smtp_server).splitlines()) == 252, "one line for each post"

    downloaded = client.get(f"/exports/{job.id}/download")
    assert downloaded.data == attachment(smtp_server)
    assert downloaded.headers["Content-Disposition"] == "attachment; filename=posts.json"
    archive = db.session.get(Archive, job.id)
    assert archive is not None
    assert (archive.posts, archive.size) == (250, len(downloaded.data))
    assert job.root.result == {
        "archive_id": job.id,
        "posts": 250,
        "size": len(downloaded.data),
        "sha256": archive.sha256,
    }
    assert files(app) == [f"{job.id}.1.json"]


def test_archive_is_json_with_one_line_per_post() -> None:
    rng = random.Random(7)
    pieces = ["{", "}", ",", '"', "\\", "\n", ":", "body", "},{", '},{"', '},{"body":', '"},', "x"]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(1, 8))) for _ in range(20_000)]
    posts = [{"body": text, "timestamp": BEGINNING} for text in texts]

    archive = b"".join(to_json(iter([posts[:5000], posts[5000:]])))

    assert [post["body"] for post in json.loads(archive)["posts"]] == texts
    lines = archive.decode().splitlines()[1:-1]
    assert [json.loads(line.removesuffix(","))["body"] for line in lines] == texts


def test_export_without_posts_is_empty_list(susan: User, worker: Worker, smtp_server: SmtpServer) -> None:
    susan.launch_task("export_posts", "Export")
    db.session.commit()

    assert ended(susan).state == "SUCCESS"
    assert json.loads(attachment(smtp_server)) == {"posts": []}


@pytest.mark.both_databases
def test_archive_has_only_own_posts(susan: User, make_user: Callable[..., User], app: Flask) -> None:
    write_posts(make_user("ben"), bodies(3))

    assert json.loads(b"".join(to_json(read_posts(susan.id)))) == {"posts": []}


@pytest.mark.both_databases
def test_second_export_is_refused_while_running(susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    client = signed_in(susan)
    client.post("/export_posts")

    response = client.post("/export_posts", follow_redirects=True)

    assert "An export is already running" in response.text
    assert len(newest_jobs(susan.id, BEGINNING)) == 1


def test_large_archive_is_mailed_as_private_link(
    susan: User,
    make_user: Callable[..., User],
    signed_in: Callable[..., FlaskClient],
    make_worker: Callable[..., Worker],
    smtp_server: SmtpServer,
) -> None:
    write_posts(susan, bodies(20))
    make_worker(EXPORT_ATTACHMENT_LIMIT="100")
    susan.launch_task("export_posts", "Export")
    db.session.commit()
    job = ended(susan)
    assert job.state == "SUCCESS"

    [message] = smtp_server.messages
    assert list(message.iter_attachments()) == []
    path = link_in(message)
    assert json.loads(signed_in(susan).get(path).data) == {"posts": expected_posts(20)}
    assert signed_in(make_user("ben")).get(path).status_code == 404


def test_expired_or_forged_link_is_refused(app: Flask, susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    archive = Archive(
        id="a" * 36, user_id=susan.id, path="x.json", posts=0, size=2, sha256="", expires_at=BEGINNING + timedelta(9999)
    )
    db.session.add(archive)
    db.session.commit()
    link = download_url(archive).removeprefix("http://localhost")
    app.config["EXPORT_LINK_LIFETIME"] = -1
    client = signed_in(susan)

    expired = client.get(link)
    assert expired.status_code == 410
    assert "This link has expired" in expired.text
    forged = client.get(link + "x")
    assert forged.status_code == 404
    assert "There is no such archive" in forged.text


def test_foreign_archive_looks_like_unknown_archive(
    app: Flask, susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    archive = Archive(
        id="a" * 36, user_id=susan.id, path="x.json", posts=0, size=2, sha256="", expires_at=BEGINNING + timedelta(9999)
    )
    db.session.add(archive)
    db.session.commit()
    client = signed_in(make_user("ben"))

    foreign, unknown = client.get(f"/exports/{archive.id}/download"), client.get("/exports/nonsense%00/download")

    assert foreign.status_code == unknown.status_code == 404
    assert without_csrf_tokens(foreign.text) == without_csrf_tokens(unknown.text)


@pytest.mark.parametrize(
    ("posts", "detected_at_end"), [pytest.param(4 * BATCH, False, marks=pytest.mark.exhaustive), (BATCH, True)]
)
@pytest.mark.both_databases(each_run=False)
def test_cancelled_export_leaves_no_file(
    app: Flask, susan: User, worker: Worker, smtp_server: SmtpServer, posts: int, detected_at_end: bool
) -> None:
    write_posts(susan, bodies(posts))
    parts = Path(app.config["EXPORT_STORAGE_URL"]) / PARTS
    parts.mkdir(parents=True, exist_ok=True)  # a worker may have created it
    task = susan.launch_task("export_posts", "Export")
    # A pipe instead of the temporary file: the export blocks until the test reads on.
    os.mkfifo(parts / f"{task.id}.1.json")
    db.session.commit()
    with (parts / f"{task.id}.1.json").open("rb") as pipe:
        assert pipe.read(9) == b'{"posts":'
        cancel_job(only_job(susan))
        pause = timedelta(seconds=0 if detected_at_end else ROW_INTERVAL)
        wait_for(lambda: utcnow() - only_job(susan).root.updated_at > pause, what="the row may be written again")

        pipe.read()

    assert ended(susan).state == "REVOKED"
    wait_for(lambda: [step.state for step in only_job(susan).steps] == ["REVOKED", "REVOKED"])
    assert list(parts.parent.rglob("*.json")) == []
    assert smtp_server.messages == []


def test_interrupted_export_leaves_no_transaction(app: Flask, susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
    write_posts(susan, bodies(3))
    export = app.extensions["celery"].tasks["export_posts"]
    monkeypatch.setattr(Progress, "advance", raise_cancelled)
    export.push_request(id="export", root_id="export")

    with pytest.raises(Cancelled) as cancelled:
        export.run(susan.id)

    assert cancelled.traceback  # the frames of the export still exist
    assert db.session.get(Archive, "export"), "which lets the sweep find the file if the process is killed"
    db.session.remove()
    assert "Checked out connections: 0" in db.engine.pool.status()
    export.pop_request()


def raise_cancelled(*_: object) -> None:
    raise Cancelled


@pytest.mark.both_databases
def test_expired_archive_is_deleted(app: Flask, susan: User, worker: Worker) -> None:
    susan.launch_task("export_posts", "Export")
    db.session.commit()
    job = ended(susan)
    assert cleanup.delete_expired() == 0
    assert files(app) == [f"{job.id}.1.json"]

    db.session.execute(sa.update(Archive).values(expires_at=BEGINNING))
    db.session.commit()

    assert cleanup.delete_expired() == 1
    assert files(app) == []
    assert db.session.get(Archive, job.id) is None


@pytest.mark.both_databases
def test_next_attempt_deletes_files_of_earlier_ones(app: Flask, susan: User) -> None:
    folder = Path(app.config["EXPORT_STORAGE_URL"])
    (folder / PARTS).mkdir(parents=True)
    for name in ("export.1.json", f"{PARTS}/export.2.json", f"{PARTS}/other.1.json"):
        (folder / name).write_text("half")
    export = app.extensions["celery"].tasks["export_posts"]
    export.push_request(id="export", root_id="export", retries=2)

    export.run(susan.id)

    export.pop_request()
    assert files(app) == ["export.3.json", "other.1.json"]


@pytest.mark.both_databases
def test_files_of_cancelled_job_are_deleted(app: Flask, susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id = susan.launch_task("export_posts", "Export").id
    db.session.execute(sa.update(Task).where(Task.id == task_id).values(state="REVOKED"))
    record(id=task_id, attempt=2, user_id=susan.id, path=archive_path(task_id, 2), expires_at=utcnow() + timedelta(1))
    folder = Path(app.config["EXPORT_STORAGE_URL"])
    (folder / PARTS).mkdir(parents=True)
    for attempt in (1, 2):
        (folder / PARTS / archive_path(task_id, attempt)).write_text("half")
    assert signed_in(susan).get(f"/exports/{task_id}/download").status_code == 404
    assert archives_of_job(only_job(susan)) == []

    assert cleanup.delete_archives_of_failed_exports() == 1
    assert files(app) == []
    assert db.session.get(Archive, task_id) is None


@pytest.mark.both_databases
def test_stale_attempt_does_not_replace_archive(app: Flask, susan: User) -> None:
    columns = {"id": "job", "user_id": susan.id, "expires_at": utcnow() + timedelta(days=1)}
    for attempt in (1, 2):
        record(attempt=attempt, path=archive_path("job", attempt), **columns)

    with pytest.raises(ClaimLost):
        record(attempt=1, path=archive_path("job", 1), sha256="first", **columns)

    archive = db.session.get_one(Archive, "job")
    assert (archive.attempt, archive.path, archive.sha256) == (2, "job.2.json", "")


@pytest.mark.both_databases
def test_concurrent_attempts_leave_archive_of_latest(app: Flask, susan: User) -> None:
    columns = {"user_id": susan.id, "expires_at": utcnow() + timedelta(days=1)}
    at_once = threading.Barrier(8)

    def finish(attempt: int) -> None:
        with app.app_context(), contextlib.suppress(ClaimLost):
            at_once.wait()
            record(id="job", attempt=attempt, path=archive_path("job", attempt), **columns)

    attempts = [threading.Thread(target=finish, args=[attempt]) for attempt in range(1, 9)]
    for thread in attempts:
        thread.start()
    for thread in attempts:
        thread.join()

    assert db.session.get_one(Archive, "job").attempt == 8
