"""The jobs that ``flask tasks watch`` reads from the Task table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.monitoring.watch.reader import ALL, FAILED, JobQuery, JobReader
from microblog.taskqueue.models import Task
from tests.support.factories import make_job

pytestmark = pytest.mark.both_databases


class TestReader:
    def ids(self, reader: JobReader, **filters: Any) -> list[str]:
        return [job.id for job in reader.read(JobQuery(**filters)).jobs]

    def test_running_jobs_precede_oldest_waiting_jobs(self, app: Flask, make_user: Callable[..., User]) -> None:
        users = [make_user(name) for name in ("susan", "david", "anna", "miguel", "ellen")]
        newer = make_job(users[0], "PENDING", "PENDING", seconds_ago=1000)
        older = make_job(users[1], "RETRY", "PENDING", seconds_ago=9000)
        running = make_job(users[2], "STARTED", "PENDING", lease_expires_at=utcnow() + timedelta(hours=1))
        between_steps = make_job(users[3], "SUCCESS", "PENDING", seconds_ago=5000)
        lost = make_job(users[4], "PROGRESS", "PENDING", seconds_ago=9999, lease_expires_at=utcnow())
        make_job(None, "SUCCESS")

        result = JobReader().read(JobQuery())

        assert [job.id for job in result.jobs] == [running, lost, older, between_steps, newer]
        assert (result.counts.running, result.counts.waiting) == (1, 4)
        assert result.counts.oldest_waiting is not None
        assert (result.counts.oldest_waiting.user, result.counts.oldest_waiting.job_id) == ("ellen", lost)

    def test_text_filters_unfinished_jobs(self, app: Flask, susan: User, make_user: Callable[..., User]) -> None:
        job = make_job(susan, "PENDING", worker="worker7@host")
        make_job(make_user("david"), "PENDING", worker="worker8@host")

        for text in ("SUS", "worker7 export", job[:9], "pend susan"):
            assert self.ids(JobReader(), text=text) == [job]
        for text in ("%", "susan david", "worker_@"):
            assert self.ids(JobReader(), text=text) == []

    def test_finished_job_lingers(self, app: Flask, susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("microblog.monitoring.watch.reader.SHOW_ENDED_FOR", timedelta(hours=1))
        reader = JobReader()
        job = make_job(susan, "STARTED")
        assert self.ids(reader) == [job]

        db.session.execute(sa.update(Task).values(state="SUCCESS", updated_at=utcnow()))
        db.session.commit()

        assert [line.state for line in reader.read(JobQuery()).jobs] == ["SUCCESS"]
        db.session.execute(sa.update(Task).values(updated_at=utcnow() - timedelta(hours=2)))
        db.session.commit()
        assert self.ids(reader) == []

    def test_failed_and_all_views(self, app: Flask, susan: User) -> None:
        failed = make_job(susan, "FAILURE", "FAILURE", seconds_ago=5000)
        done = make_job(susan, "SUCCESS", "SUCCESS", seconds_ago=9000)
        waiting = make_job(susan, "PENDING", "PENDING")

        assert self.ids(JobReader(), view=FAILED) == [failed]
        assert self.ids(JobReader(), view=ALL) == [waiting, failed, done]

    def test_opened_job_is_read_with_its_steps(self, app: Flask, susan: User) -> None:
        job = make_job(susan, "FAILURE", "FAILURE", traceback="line 1")

        result = JobReader().read(JobQuery(opened=job, maybe_without_row=frozenset({job, "stranger"})))

        assert result.detail is not None
        assert [step["traceback"] for step in result.detail["steps"]] == ["line 1", "line 1"]
        assert result.with_row == {job}
        assert JobReader().read(JobQuery(opened="gone")).detail is None
