"""The list of entries that an import refused: visible to its owner only, and stored as long as an export archive."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from celery.result import EagerResult
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.imports import importer, rejected_entries, uploads
from microblog.imports.models import RejectedEntry, Upload, upload_storage
from microblog.imports.tasks import import_posts
from microblog.posts.models import Post
from microblog.taskqueue.models import Task
from tests.support.api import assert_problem, caller_for
from tests.support.factories import BEGINNING
from tests.support.imports import archive, files, post, run_import, store

pytestmark = pytest.mark.both_databases

BAD = 150
PUBLIC = "https://www.w3.org/ns/activitystreams#Public"
REASON = "It has 141 characters; a post here has at most 140."


def run_import_job(user: User, content: bytes) -> tuple[str, EagerResult]:
    """Import `content` in a job that has ended; return the job's id and its result."""
    upload = store(user, content)
    task_id = user.launch_task("import_posts", "Import", upload.id).id
    db.session.commit()
    outcome = run_import(user, upload)
    task = db.session.get_one(Task, task_id)
    task.state, task.finished_at = outcome.state, utcnow()
    task.error = str(outcome.result) if outcome.failed() else None
    db.session.commit()
    return task_id, outcome


def imported(user: User, content: bytes) -> tuple[str, dict[str, Any]]:
    """Import `content`; return the job's id and its report. Fails if the import does."""
    task_id, outcome = run_import_job(user, content)
    assert outcome.state == "SUCCESS", outcome.traceback
    return task_id, outcome.result


def refusal_count() -> int:
    db.session.rollback()
    return db.session.scalar(sa.select(sa.func.count()).select_from(RejectedEntry)) or 0


def invalid_archive() -> bytes:
    return archive(post("good"), *(post("x" * 141, n) for n in range(BAD)))


def test_refusals_are_downloaded_as_csv_by_owner(
    susan: User, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH", 40)
    monkeypatch.setattr(rejected_entries, "BATCH", 40)
    address = "https://tooting.example/@susan/1"
    note = {"type": "Note", "content": "<p>a</p>", "to": "as:Public", "published": "never", "url": address}
    outbox = b'{"orderedItems": [%s]}' % archive({"type": "Create", "object": note})[11:-2]
    task_id, result = imported(susan, invalid_archive().rstrip(b"}") + b",\n" + outbox[1:])
    browser = signed_in(susan)

    response = browser.get(f"/import/{task_id}/refusals")

    assert (result["refused"], len(result["refusals"])) == (BAD + 1, importer.RESULT_LIMIT)
    assert response.headers["Content-Disposition"] == "attachment; filename=refusals.csv"
    heading, *rows = csv.reader(response.data.decode("utf-8-sig").splitlines())
    assert heading == ["Number", "Line", "Reason", "Address"]
    assert rows[:-1] == [[str(number), "1", REASON, ""] for number in range(2, BAD + 2)]
    assert rows[-1] == ["1", "2", "Its time is not one (such as 2026-11-21T09:30:00Z).", address]
    assert signed_in(make_user("ben")).get(f"/import/{task_id}/refusals").status_code == 404
    assert browser.get("/import/none/refusals").status_code == 404


def test_invalid_address_is_sanitized(app: Flask, susan: User) -> None:
    invalid = ["https://x/\ud800", "https://x/\0", "https://x/SPOILT", "https://x/" + "\ud83d" * 600]
    notes = [
        {"type": "Note", "content": f"<p>{url}</p>", "to": PUBLIC, "url": url, "published": BEGINNING.isoformat()}
        for url in ["https://x/good", *(f"{url}{'!' * 150}" for url in invalid), "https://x/better"]
    ]
    outbox = json.dumps({"orderedItems": [{"type": "Create", "object": note} for note in notes]}).encode()

    task_id, result = imported(susan, outbox.replace(b"SPOILT", b"sp\xffilt"))

    assert db.session.scalars(sa.select(Post.body).order_by(Post.id)).all() == ["https://x/good", "https://x/better"]
    refusals = caller_for(app, susan).get(f"/api/imports/{task_id}/refusals").get_json()["items"]
    listed = [item["address"] for item in refusals]
    assert listed == [refusal["address"] for refusal in result["refusals"]]
    suffix = "!" * 150
    assert listed == [f"https://x/\ufffd{suffix}"] * 2 + [
        f"https://x/sp\ufffdilt{suffix}",
        "https://x/" + "\ufffd" * 490,
    ]


def test_api_pages_refusals(app: Flask, susan: User, make_user: Callable[..., User]) -> None:
    task_id, _result = imported(susan, invalid_archive())
    export_id = susan.launch_task("export_posts", "Export").id
    caller, pages = caller_for(app, susan), []
    path: str | None = f"/api/imports/{task_id}/refusals?limit=60"
    while path:
        pages.append(caller.get(path).get_json())
        path = pages[-1]["next"]

    assert [len(page["items"]) for page in pages] == [60, 60, 30]
    items = [item for page in pages for item in page["items"]]
    assert items == [{"number": n, "line": 1, "reason": REASON, "address": None} for n in range(2, BAD + 2)]
    assert [page["prev"] is None for page in pages] == [True, False, False]
    assert caller.get(pages[2]["prev"]).get_json() == pages[1]
    assert caller.get(pages[1]["prev"]).get_json() == pages[0]
    assert_problem(caller.get(f"/api/imports/{task_id}/refusals?after=x"), 400)
    assert_problem(caller.get(f"/api/imports/{export_id}/refusals"), 404)
    assert_problem(caller_for(app, make_user("ben")).get(f"/api/imports/{task_id}/refusals"), 404)


def test_refusals_before_broken_json_are_listed(app: Flask, susan: User, signed_in: Callable[..., FlaskClient]) -> None:
    task_id, outcome = run_import_job(susan, invalid_archive()[:-1])
    browser = signed_in(susan)

    assert outcome.state == "FAILURE"
    assert uploads.delete_expired() == 0
    assert (refusal_count(), files()) == (BAD, [])
    card = browser.get(f"/tasks/{task_id}/card").text
    assert "What came before that has been imported." in card
    [link] = re.findall(r'href="([^"]*/refusals)"', card)
    assert len(browser.get(link).text.splitlines()) == BAD + 1
    listed = caller_for(app, susan).get(f"/api/imports/{task_id}/refusals").get_json()["items"]
    assert listed[0] == {"number": 2, "line": 1, "reason": REASON, "address": None}
    db.session.scalars(sa.select(Upload)).one().expires_at = BEGINNING
    db.session.commit()
    assert uploads.delete_expired() == 1
    assert "/refusals" not in browser.get(f"/tasks/{task_id}/card").text


def test_new_import_replaces_previous_refusals(
    susan: User, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejected_entries, "BATCH", 40)
    user_id, ben = susan.id, make_user("ben")
    imported(ben, invalid_archive())

    counts = []
    for content in (invalid_archive(), invalid_archive()[:-1], archive([], []), archive(post("good", 1))):
        run_import_job(susan, content)
        listed = sa.select(RejectedEntry.upload_id, sa.func.count()).join(Upload).where(Upload.user_id == user_id)
        counts.append([count for _upload, count in db.session.execute(listed.group_by(RejectedEntry.upload_id))])

    assert counts == [[BAD], [BAD], [2], []]
    assert refusal_count() == BAD, "refusals of other users remain"


def test_refusals_expire_and_are_deleted_with_user(
    app: Flask, susan: User, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejected_entries, "BATCH", 40)
    ben = make_user("ben")
    imported(susan, invalid_archive())
    imported(ben, invalid_archive())

    assert uploads.delete_expired() == 0
    assert (refusal_count(), files()) == (2 * BAD, [])
    upload = db.session.scalars(sa.select(Upload).where(Upload.user_id == susan.id)).one()
    lifetime = timedelta(seconds=app.config["EXPORT_LIFETIME"])
    assert lifetime - timedelta(minutes=5) < upload.expires_at - utcnow() < lifetime
    susan_id, upload.expires_at = susan.id, BEGINNING
    db.session.commit()
    assert uploads.delete_expired() == 1
    assert refusal_count() == BAD
    assert uploads.delete_by_user(susan_id) == 0
    assert uploads.delete_by_user(ben.id) == 1
    assert refusal_count() == 0


@pytest.mark.parametrize("database", ["sqlite"])
def test_repeated_import_lists_capped_refusals_once(susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "STORED_LIMIT", 20)
    content = archive(*[[]] * 30)
    imported(susan, content)
    upload = db.session.scalars(sa.select(Upload)).one()
    upload.report = None  # as if the worker was killed before it stored the report
    db.session.commit()
    with upload_storage().new(upload.path) as file:
        file.write([content])

    again = import_posts.apply(args=[susan.id, upload.id])

    assert again.result["refused"] == 30
    assert refusal_count() == 20
