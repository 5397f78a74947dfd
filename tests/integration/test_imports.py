"""Importing posts: upload, task, report and duplicate detection."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.exports.archive import read_posts, to_json
from microblog.extensions import db
from microblog.imports import duplicates, importer, json_reader, uploads
from microblog.imports.models import Upload
from microblog.imports.parsers import from_archive
from microblog.imports.tasks import import_posts
from microblog.jobs.services import cancel_job, retry_job
from microblog.posts.models import Post
from microblog.taskqueue.errors import UserError
from microblog.taskqueue.interface import Progress
from microblog.taskqueue.models import Task
from tests.support.factories import BEGINNING, crash, ended, only_job, rows_of
from tests.support.imports import archive, files, post, run_import, store
from tests.support.servers import Worker, wait_for

pytestmark = pytest.mark.both_databases

BETWEEN = importer.BATCH + 100
PUBLIC = "https://www.w3.org/ns/activitystreams#Public"
FOLLOWERS = "https://tooting.example/users/susan/followers"


def note(content: str, to: Any = PUBLIC, cc: Any = FOLLOWERS, **more: Any) -> dict[str, Any]:
    activity_object = {
        "type": "Note",
        "content": content,
        "published": "2025-05-01T10:00:00Z",
        "to": to,
        "cc": cc,
    } | more
    return {"type": "Create", "published": "2025-05-01T10:00:00Z", "to": to, "cc": cc, "object": activity_object}


def outbox(*activities: Any) -> bytes:
    return json.dumps({"@context": "x", "type": "OrderedCollection", "orderedItems": activities}).encode()


def imported(user: User, content: bytes) -> dict[str, Any]:
    """Import `content` and return the report. Fails if the import does."""
    outcome = run_import(user, store(user, content))
    assert outcome.state == "SUCCESS", outcome.traceback
    result: dict[str, Any] = outcome.result
    return result


def exported(user: User) -> bytes:
    return b"".join(to_json(read_posts(user.id)))


def bodies(user: User) -> list[str]:
    return [one["body"] for batch in read_posts(user.id) for one in batch]


def test_upload_is_imported_by_worker_and_deleted(
    susan: User, signed_in: Callable[..., FlaskClient], worker: Worker
) -> None:
    client = signed_in(susan)

    file = archive(post("one"), post(""), post("two", 1))
    response = client.post("/import", data={"file": (io.BytesIO(file), "posts.json")})

    assert response.status_code == 302
    assert ended(susan).state == "SUCCESS"
    assert only_job(susan).root.signature["args"] == [susan.id, db.session.scalar(sa.select(Upload.id))]
    assert bodies(susan) == ["one", "two"]
    assert files() == []
    wait_for(lambda: "Your import is done." in client.get("/notifications/all").text, what="the notification")
    shown = client.get("/tasks").text
    assert "2 posts imported" in shown
    assert "1 post could not be imported" in shown
    assert "It is empty." in shown


@pytest.mark.both_databases(each_run=False)
def test_export_import_export_round_trip(susan: User, make_user: Callable[..., User]) -> None:
    rng, ben = random.Random(3), make_user("ben")
    timestamps = [BEGINNING + timedelta(microseconds=rng.randrange(0, 10**9)) for _ in range(900)]
    for timestamp in timestamps + timestamps[:400] + [BEGINNING] * 1300:  # some timestamps occur twice, one very often
        body = rng.choice(
            ["한국어 🎉", "line\nbreak ", "\u2028-", "x" * 140, "a" + chr(0x10FFFF), " \\ud83d \r\n", '"']
        )
        db.session.add(Post(user_id=susan.id, body=body, timestamp=timestamp))
    db.session.commit()
    first = exported(susan)

    assert imported(ben, first)["imported"] == 2600
    assert exported(ben) == first
    again = imported(ben, first)

    assert (again["imported"], again["known"]) == (0, 2600)
    assert imported(susan, first)["imported"] == 0
    assert exported(ben) == exported(susan) == first


def test_duplicates_within_a_file_are_imported(susan: User) -> None:
    far_apart = [post("twice"), *(post(f"between {n}", 1 + n % 7) for n in range(BETWEEN)), post("twice")]
    db.session.add(Post(user_id=susan.id, body="twice", timestamp=BEGINNING))
    db.session.commit()

    first = imported(susan, archive(*far_apart))
    again = imported(susan, archive(*reversed(far_apart)))

    assert bodies(susan).count("twice") == 2
    assert (first["imported"], first["known"]) == (BETWEEN + 1, 1)
    assert (again["imported"], again["known"]) == (0, BETWEEN + 2)


@pytest.mark.parametrize("database", ["sqlite"])
def test_duplicates_are_counted_in_bounded_memory(susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_TEXTS", 50)
    monkeypatch.setattr(importer, "BATCH", 20)
    anywhere = Mock(side_effect=duplicates.count_anywhere)
    monkeypatch.setattr(importer, "count_anywhere", anywhere)
    fitting = [*(post(f"early {n}") for n in range(50)), *(post(f"late {n}", 1) for n in range(50)), post("late 7", 1)]

    assert imported(susan, archive(*fitting))["imported"] == 101
    assert anywhere.call_count == 0
    more = [*fitting, *(post(f"last {n % 90}", 2) for n in range(100))]
    results = [imported(susan, archive(*more)) for _ in range(2)]

    assert anywhere.call_count == 2
    assert [(one["imported"], one["known"]) for one in results] == [(100, 101), (0, 201)]
    assert bodies(susan) == [one["body"] for one in more]


@pytest.mark.parametrize("database", ["sqlite"])
def test_progress_is_monotonic_over_two_passes(susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "BATCH", 10)
    monkeypatch.setattr(json_reader, "CHUNK", 200)
    updates: list[tuple[int, int]] = []

    class RecordedProgress(Progress):
        def _store(self, *, persist: bool) -> None:
            assert self._describe is not None
            updates.append((self.percent, int(self._describe(self.current, self.total).split()[0])))

        def advance(self, by: int = 1) -> None:
            super().advance(by)
            self._store(persist=True)

    monkeypatch.setattr(importer, "Progress", RecordedProgress)

    imported(susan, archive(*(post(f"number {n}", n) for n in range(60)), *(post("early", n) for n in range(20))))

    percents, counts = zip(*updates, strict=True)
    assert list(percents) == sorted(percents)
    assert list(counts) == sorted(counts)
    assert (percents[0], percents[-1], counts[-1]) == (0, 100, 80)
    assert len(set(percents)) > 10, "it also advances in the second pass"


@pytest.mark.parametrize("database", ["sqlite"])
def test_language_is_detected_outside_write_transaction(susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
    other_connection = sqlite3.connect(str(db.engine.url.database), timeout=0, isolation_level=None)
    detected: list[str] = []

    def detect(body: str) -> str:
        other_connection.execute("BEGIN IMMEDIATE")  # raises if the database is locked
        other_connection.execute("ROLLBACK")
        detected.append(body)
        return "en"

    monkeypatch.setattr(importer, "detect_language", detect)

    imported(susan, archive(post("one"), post("one", 1), post("two")))
    imported(susan, archive(post("one"), post("three")))

    other_connection.close()
    assert sorted(detected) == ["one", "three", "two"], "known posts are not analysed again"
    assert db.session.scalars(sa.select(Post.language).distinct()).all() == ["en"]
    assert db.session.scalars(sa.select(Post.terms).distinct().order_by(Post.terms)).all() == ["one", "three", "two"]


def test_duplicates_match_by_body_and_timestamp(susan: User) -> None:
    existing = [post("both"), post("both"), post("both", 1), post("other"), *(post(f"number {n}") for n in range(50))]
    imported(susan, archive(*existing))

    result = imported(susan, archive(*[post("both")] * 3, *[post("both", 1)] * 3, post("other", 1)))

    assert (result["imported"], result["known"]) == (4, 3)
    assert len(bodies(susan)) == len(existing) + 4


def test_concurrent_imports_create_no_duplicates(app: Flask, susan: User) -> None:
    posts = [post(f"number {n // 2}", n // 4) for n in range(3000)]
    uploads = [store(susan, archive(*posts)) for _ in range(2)]
    user_id, ids = susan.id, [uploads[0].id, uploads[0].id, uploads[1].id]
    db.session.rollback()
    barrier, outcomes = threading.Barrier(len(ids)), []

    def run(upload_id: str) -> None:
        with app.app_context():
            barrier.wait()
            outcomes.append(import_posts.apply(args=[user_id, upload_id]))

    threads = [threading.Thread(target=run, args=[upload_id]) for upload_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert bodies(susan) == [one["body"] for one in posts]
    # The first one to finish deletes the file that the other one reads; the other one may fail for that reason.
    assert {outcome.state for outcome in outcomes} <= {"SUCCESS", "FAILURE"}
    db.session.rollback()
    assert sum(db.session.scalars(sa.select(Upload.imported))) == len(posts)


@pytest.mark.parametrize("database", ["sqlite"])
def test_invalid_posts_are_listed_with_line_and_reason(susan: User) -> None:
    later = (utcnow() + timedelta(days=1)).isoformat()
    bad = [
        (post(17), "It has no text."),
        (post(" \n"), "It is empty."),
        (post("x" * 141), "It has 141 characters; a post here has at most 140."),
        (post("a\0b"), "It has characters that cannot be kept (NUL or half a character)."),
        (post("\ud800"), "It has characters that cannot be kept (NUL or half a character)."),
        ({"body": "when?"}, "Its time is not one (such as 2026-11-21T09:30:00Z)."),
        ({"body": "when?", "timestamp": "0001-01-01T00:00:00+14:00"}, "Its time is not one"),
        ({"body": "when?", "timestamp": "2026-01-01T00:00:00"}, "Its time does not say in which zone it is."),
        ({"body": "old", "timestamp": "1969-12-31T23:59:59Z"}, "Its time is before 1970."),
        ({"body": "soon", "timestamp": later}, "Its time is in the future."),
        ("text", "It is not a post."),
    ]
    lines = [json.dumps(post("good")), *(json.dumps(entry) for entry, _reason in bad), json.dumps(post("x" * 140, 1))]

    result = imported(susan, ('{"posts": [\n' + ",\n".join(lines) + "\n]}").encode())

    assert (result["read"], result["imported"], result["refused"]) == (len(bad) + 2, 2, len(bad))
    for number, (refusal, (_entry, reason)) in enumerate(zip(result["refusals"], bad, strict=True), start=2):
        assert (refusal["number"], refusal["line"]) == (number, number + 1)
        assert refusal["reason"].startswith(reason)
    assert bodies(susan) == ["good", "x" * 140]


@pytest.mark.parametrize("database", ["sqlite"])
def test_invalid_utf8_is_refused_and_list_is_capped(susan: User) -> None:
    content = archive(post("first"), *[post("spoilt")] * 150, post("last", 1)).replace(b"spoilt", b"sp\xffilt")

    result = imported(susan, content)

    assert bodies(susan) == ["first", "last"]
    assert (result["refused"], len(result["refusals"])) == (150, 100)


def test_truncated_file_keeps_imported_posts(susan: User) -> None:
    count = importer.BATCH + 500
    whole = ('{"posts": [\n' + ",\n".join(json.dumps(post(f"number {n}", n)) for n in range(count)) + "\n]}").encode()
    upload = store(susan, whole[:-40])

    first, second = (run_import(susan, upload) for _ in range(2))

    assert (first.state, second.state) == ("FAILURE", "FAILURE")
    sentence = str(first.result)
    assert sentence.startswith(f"The file is broken in line {count + 1:,}, column ")
    assert sentence.endswith("What came before that has been imported.")
    assert str(second.result) == "The uploaded file is no longer there. Please upload it again."
    assert files() == []
    assert uploads.delete_expired() == 1
    assert len(bodies(susan)) == count - 1
    assert imported(susan, whole)["imported"] == 1
    assert len(bodies(susan)) == count


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{}", "neither an archive"),
        (b'{"posts": 1, "orderedItems": {}}', "neither an archive"),
        (b'{"posts": [' + b"[" * 100_000, "broken in line 1, column 12"),
        (b'{"posts": [], "more": "' + b"x" * 3_000_000 + b'"}', "column 23 of the file is too long"),
        (b"[]", "broken in line 1, column 1"),
        (b'{"posts": [1,]}', "broken in line 1, column 14"),
        (b'{"posts": []}\n\n{}', "broken in line 3, column 1"),
    ],
)
def test_unknown_file_format_fails_with_reason(susan: User, content: bytes, reason: str) -> None:
    outcome = run_import(susan, store(susan, content))

    assert outcome.state == "FAILURE"
    assert isinstance(outcome.result, UserError)
    assert reason in str(outcome.result)
    assert files() == []


@pytest.mark.parametrize("database", ["sqlite"])
def test_mastodon_outbox_imports_public_posts_as_text(susan: User) -> None:
    mention = (
        '<p><span class="h-card"><a href="https://x.example/@ben" class="u-url mention">@<span>ben</span></a></span> hi'
    )
    activities = [
        note(f"{mention}<br />there</p><p>And <b>more</b> &amp; more</p>"),
        note("<p>unlisted</p>", to=[FOLLOWERS], cc=[PUBLIC]),
        note("<p>for followers</p>", to=[FOLLOWERS], cc=[]),
        note("<p>for ben</p>", to=["https://x.example/users/ben"], cc=None),
        note("<p>careful</p>", summary="Spoiler"),
        note("<p></p>"),
        note(f"<p>{'long ' * 40}</p>", url="https://tooting.example/@susan/1"),
        note("<p>look</p>", attachment=[{"type": "Document", "mediaType": "image/png"}]),
        note("<p></p>", attachment=[{"type": "Document", "mediaType": "image/png", "name": "A heron"}]),
        {"type": "Announce", "object": "https://x.example/1", "to": [PUBLIC]},
        {"type": "Like", "object": "https://x.example/1", "to": [PUBLIC]},
    ]

    result = imported(susan, outbox(*activities))

    assert bodies(susan) == ["@ben hi\nthere\n\nAnd more & more", "unlisted", "Spoiler\n\ncareful", "look"]
    assert result["without_media"] == 1
    assert result["left_out"] == {"private": 2, "boosts": 1, "other": 1}
    assert [(one["number"], one["address"]) for one in result["refusals"]] == [
        (6, None),
        (7, "https://tooting.example/@susan/1"),
        (9, None),
    ]
    assert result["refusals"][2]["reason"].startswith("It has no text, only pictures")
    assert imported(susan, outbox(*activities))["imported"] == 0


@pytest.mark.both_databases(each_run=False)
@pytest.mark.exhaustive
def test_report_counts_posts_once_after_worker_crash(
    app: Flask, susan: User, make_worker: Callable[..., Worker]
) -> None:
    upload = store(susan, archive(*(post(f"number {n}", n) for n in range(10))))
    task_id = susan.launch_task("import_posts", "Import", upload.id).id
    db.session.commit()
    crash(app, task_id)
    importer.store_posts(upload.id, susan.id, [(from_archive(post("number 0")), 1)])  # before the crash

    make_worker()

    wait_for(lambda: rows_of(task_id)[0].state == "SUCCESS", what="another worker takes over")
    [row] = rows_of(task_id)
    assert row.attempts == 2
    assert row.result is not None
    assert (row.result["imported"], row.result["known"]) == (10, 0)
    assert len(bodies(susan)) == 10
    again = run_import(susan, upload)  # as if the worker was killed before its success was stored
    assert (again.state, again.result) == ("SUCCESS", row.result)


@pytest.mark.exhaustive
def test_cancelled_import_keeps_file_for_retry(susan: User, make_worker: Callable[..., Worker]) -> None:
    upload = store(susan, archive(post("one")))
    susan.launch_task("import_posts", "Import", upload.id)
    db.session.commit()
    cancel_job(only_job(susan))
    assert only_job(susan).state == "REVOKED"
    assert uploads.delete_expired() == 0
    assert files() == [upload.path]

    retry_job(only_job(susan))
    db.session.commit()
    make_worker()

    wait_for(lambda: bodies(susan) == ["one"], what="the second attempt imports")
    wait_for(lambda: files() == [], what="the file is deleted")
    wait_for(lambda: not db.session.scalar(sa.select(Task.id).where(Task.unfinished)), what="the job ends")
    assert uploads.delete_expired() == 1
    assert db.session.scalar(sa.select(Upload.id)) is None


def test_cleanup_deletes_expired_and_orphaned_uploads(susan: User, make_user: Callable[..., User]) -> None:
    ben, eve = make_user("ben"), make_user("eve")
    unused, expired, _orphaned, in_use = (store(user, b"{}") for user in (susan, susan, ben, eve))
    eve.launch_task("import_posts", "Import", in_use.id)
    db.session.execute(sa.update(Upload).where(Upload.id.in_([expired.id, in_use.id])).values(expires_at=BEGINNING))
    db.session.execute(sa.delete(User).where(User.id == ben.id))
    db.session.commit()

    assert uploads.delete_expired() == 2
    assert files() == sorted([unused.path, in_use.path])
    assert run_import(susan, expired).state == "FAILURE"
