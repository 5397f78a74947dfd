"""What `flask tasks watch` reads from the Task table."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring.watch import reader as reading_jobs
from microblog.monitoring.watch.reader import ALL, FAILED, JobReader, Wanted
from microblog.taskqueue.models import Task
from tests.support.factories import make_job

pytestmark = pytest.mark.both_databases


class TestReader:
    def ids(self, reader: JobReader, **wanted: Any) -> list[str]:
        return [job.id for job in reader.read(Wanted(**wanted)).jobs]

    def test_running_jobs_come_first_then_those_that_wait_the_oldest_first(self, app, make_user):
        users = [make_user(name) for name in ("susan", "david", "anna", "miguel")]
        young = make_job(users[0], "PENDING", "PENDING", seconds_ago=1000)
        old = make_job(users[1], "RETRY", "PENDING", seconds_ago=9000)
        running = make_job(users[2], "STARTED", "PENDING")
        between_steps = make_job(users[3], "SUCCESS", "PENDING", seconds_ago=5000)
        make_job(None, "SUCCESS")

        reading = JobReader().read(Wanted())

        assert [job.id for job in reading.jobs] == [between_steps, running, old, young]
        assert (reading.counts.running, reading.counts.waiting, reading.counts.oldest_user) == (2, 2, "david")

    def test_words_narrow_unfinished_jobs_in_the_database(self, app, susan, make_user):
        wanted = make_job(susan, "PENDING", worker="worker7@host")
        make_job(make_user("david"), "PENDING", worker="worker8@host")

        for text in ("SUS", "worker7 export", wanted[:9], "pend susan"):
            assert self.ids(JobReader(), text=text) == [wanted]
        for text in ("%", "susan david", "worker_@"):
            assert self.ids(JobReader(), text=text) == []

    def test_a_job_that_ends_stays_for_a_while(self, app, susan, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(reading_jobs, "LINGER", timedelta(hours=1))
        reader = JobReader()
        job = make_job(susan, "STARTED")
        assert self.ids(reader) == [job]

        db.session.execute(sa.update(Task).values(state="SUCCESS", updated_at=utcnow()))
        db.session.commit()

        assert [line.state for line in reader.read(Wanted()).jobs] == ["SUCCESS"]
        db.session.execute(sa.update(Task).values(updated_at=utcnow() - timedelta(hours=2)))
        db.session.commit()
        assert self.ids(reader) == []

    def test_the_other_views_have_what_failed_and_everything(self, app, susan):
        failed = make_job(susan, "FAILURE", "FAILURE", seconds_ago=5000)
        done = make_job(susan, "SUCCESS", "SUCCESS", seconds_ago=9000)
        waiting = make_job(susan, "PENDING", "PENDING")

        assert self.ids(JobReader(), view=FAILED) == [failed]
        assert self.ids(JobReader(), view=ALL) == [waiting, failed, done]

    def test_the_open_job_is_read_with_its_steps_and_tasks_without_a_row_are_told_apart(self, app, susan):
        job = make_job(susan, "FAILURE", "FAILURE", traceback="line 1")

        reading = JobReader().read(Wanted(opened=job, maybe_without_row=frozenset({job, "stranger"})))

        assert reading.detail is not None
        assert [step["traceback"] for step in reading.detail["steps"]] == ["line 1", "line 1"]
        assert reading.with_row == {job}
        assert JobReader().read(Wanted(opened="gone")).detail is None
