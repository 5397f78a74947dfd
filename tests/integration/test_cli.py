"""``flask tasks``: operators list, show, cancel and retry jobs, and scripts read the JSON output."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from itertools import product

import pytest
import redis
from click.testing import Result
from flask import Flask

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.jobs.models import Job, find_job
from microblog.monitoring import output
from microblog.monitoring.cli import tasks
from microblog.monitoring.filters import Filters
from microblog.monitoring.job_queries import find_jobs
from microblog.pagination import PageRequest
from microblog.taskqueue import states
from tests.support import not_none
from tests.support.console import Run, commands
from tests.support.factories import make_job
from tests.support.servers import RedisServer, Worker, wait_for

UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"
UNREACHABLE_REDIS = "redis://127.0.0.1:1/0"
ESCAPE = "\x1b[31mred\x1b[0m"


@pytest.fixture
def run(app: Flask) -> Run:
    return commands(app, "tasks")


def launch_export(user: User) -> Job:
    user.launch_task("export_posts", "Exporting your posts")
    db.session.commit()
    return not_none(find_job(user.get_tasks_in_progress()[0].id))


def listed(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [job["id"] for job in json.loads(result.stdout)]


@pytest.mark.both_databases
class TestList:
    def test_lists_jobs_of_all_users_newest_first(self, run: Run, susan: User, make_user: Callable[..., User]) -> None:
        old = make_job(susan, "SUCCESS", "SUCCESS", seconds_ago=2000)
        young = make_job(make_user("david"), "FAILURE", "FAILURE")
        without_user = make_job(None, "SUCCESS", seconds_ago=1000)

        result = run("list", "--json")

        assert listed(result) == [young, without_user, old]
        assert [job["user"] for job in json.loads(result.stdout)] == ["david", None, "susan"]
        assert result.stderr == ""

    def test_text_has_aligned_columns(self, run: Run, susan: User) -> None:
        make_job(susan, "SUCCESS", "SUCCESS", seconds_ago=1)
        make_job(susan, "FAILURE", "FAILURE")

        heading, failed, done = run("list").stdout.splitlines()

        assert heading.split() == ["ID", "USER", "NAME", "STATE", "STEP", "DONE", "TRIES", "CREATED", "TOOK"]
        for line, state in ((failed, "FAILURE"), (done, "SUCCESS")):
            assert line.index(state) == heading.index("STATE")
            assert line.index("export_posts") == heading.index("NAME")

    def test_list_is_filtered_by_user_state_and_name(
        self, run: Run, susan: User, make_user: Callable[..., User]
    ) -> None:
        david = make_user("david")
        running = make_job(susan, "SUCCESS", "PROGRESS", seconds_ago=3)
        failed = make_job(susan, "FAILURE", "FAILURE", seconds_ago=2)
        short = make_job(david, "SUCCESS", seconds_ago=1)

        assert listed(run("list", "--json", "--user", "susan")) == [failed, running]
        assert listed(run("list", "--json", "--user", "DAVID")) == [short]
        assert listed(run("list", "--json", "--state", "FAILURE", "--state", "success")) == [short, failed]
        assert listed(run("list", "--json", "--name", "email_export")) == [failed, running]
        assert listed(run("list", "--json", "--limit", "1")) == [short]
        assert listed(run("list", "--json", "--user", "david", "--state", "FAILURE")) == []

    def test_job_state_is_equal_in_sql_and_python(self, run: Run, susan: User) -> None:
        made = [
            make_job(None, *pair, seconds_ago=1000 * number)
            for number, pair in enumerate(product(states.ALL, repeat=2))
        ]

        for state in states.ALL:
            expected = [root_id for root_id in made if not_none(find_job(root_id)).state == state]

            found = find_jobs(Filters(states=frozenset({state})), PageRequest(size=100))
            assert [job.id for job in found.jobs] == expected

    def test_empty_list_is_no_error(self, run: Run) -> None:
        assert listed(run("list", "--json")) == []
        result = run("list")
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == "There are no such jobs.\n"

    def test_invalid_options_are_refused(self, run: Run) -> None:
        for wrong in (["--state", "DONE"], ["--limit", "0"], ["--limit", "x"], ["--user", "nobody"], ["--user", "\0"]):
            result = run("list", *wrong)

            assert result.exit_code == 2
            assert result.stdout == ""
            assert "Error" in result.stderr


class TestShow:
    def test_text_has_all_details(self, run: Run, susan: User) -> None:
        job = make_job(
            susan,
            "SUCCESS",
            "FAILURE",
            worker="celery@house",
            attempts=2,
            crashes=1,
            error="It broke.",
            traceback="Boom",
        )

        text = run("show", job).stdout

        for expected in (
            job,
            "susan",
            "export_posts",
            "email_export",
            "celery@house",
            "It broke.",
            "Boom",
            f"[[{susan.id}],{{}}]",
        ):
            assert expected in text
        assert "workers that died: 1" in text
        assert "failed" in text.partition("Timeline")[2]

    def test_json_adds_operator_fields(self, run: Run, susan: User) -> None:
        job = launch_export(susan)
        values_of_user = job.to_dict()

        shown = json.loads(run("show", job.id, "--json").stdout)

        assert {key: shown[key] for key in values_of_user if key != "steps"} == {
            key: value for key, value in values_of_user.items() if key != "steps"
        }
        assert (shown["user"], shown["queue"], shown["worker"]) == ("susan", "exports", None)
        assert shown["published_at"].endswith("Z")
        assert [step["queue"] for step in shown["steps"]] == ["exports", "mail"]
        assert shown["steps"][0]["args"] == [susan.id]

    def test_step_id_shows_its_job(self, run: Run, susan: User) -> None:
        job = make_job(susan, "SUCCESS", "SUCCESS")

        assert json.loads(run("show", f"{job}-1", "--json").stdout)["id"] == job

    def test_unknown_id_is_refused(self, run: Run) -> None:
        for unknown in (UNKNOWN_ID, "x", "a\udcffb"):
            text, as_json = run("show", unknown), run("show", unknown, "--json")

            assert (text.exit_code, text.stdout) == (2, "")
            assert "there is no such task" in text.stderr
            assert (as_json.exit_code, json.loads(as_json.stdout)) == (2, None)

    @pytest.mark.parametrize("database", ["sqlite"])
    def test_export_has_mail_and_archive(self, run: Run, susan: User, worker: Worker) -> None:
        job = launch_export(susan)

        wait_for(
            lambda: json.loads(run("show", job.id, "--json").stdout)["state"] == states.SUCCESS, what="the export ends"
        )

        text, shown = run("show", job.id).stdout, json.loads(run("show", job.id, "--json").stdout)
        [mail], [archive] = shown["mails"], shown["archives"]
        assert mail["message_id"].startswith(f"<{job.steps[1].id}@")
        assert mail["accepted_at"].endswith("Z")
        assert archive["sha256"] == shown["result"]["sha256"]
        assert archive["size"] == shown["result"]["size"]
        assert archive["expires_at"] > archive["created_at"]
        assert all(
            expected in text for expected in (mail["message_id"], archive["path"], archive["sha256"], "Expires at")
        )
        assert worker.name in text
        line = text.partition("Timeline")[2].partition("Step 1")[0]
        events = ["created", "published", "first started", "succeeded"]
        assert [line.count(event) for event in events] == [2, 2, 2, 2]


class TestCancelAndRetry:
    def test_pending_job_is_cancelled(self, run: Run, susan: User) -> None:
        job = launch_export(susan)

        result = run("cancel", job.id)

        assert (result.exit_code, result.stdout) == (0, f"{job.id}: cancelled.\n")
        assert not_none(find_job(job.id)).state == states.REVOKED

    def test_running_job_is_asked_to_stop(self, run: Run, susan: User) -> None:
        job = make_job(susan, "PROGRESS", "PENDING", lease_expires_at=utcnow() + timedelta(hours=1))

        result = run("cancel", job)

        assert result.exit_code == 0
        assert "cancellation requested" in result.stdout
        assert not_none(find_job(job)).cancel_requested

    def test_finished_job_is_refused(self, run: Run, susan: User) -> None:
        done = make_job(susan, "SUCCESS")

        for command in ("cancel", "retry"):
            result = run(command, done)

            assert (result.exit_code, result.stdout) == (1, "")
            assert result.stderr.startswith(f"{done}: ")

    def test_retry_creates_job_of_same_user(self, run: Run, susan: User) -> None:
        failed = make_job(susan, "FAILURE", "FAILURE")

        result = run("retry", failed, "--json")

        [again] = json.loads(result.stdout)
        assert result.exit_code == 0
        assert (again["asked"], again["done"], again["retried_from"], again["user"]) == (failed, True, failed, "susan")
        assert not_none(find_job(again["id"])).root.user_id == susan.id
        assert json.loads(run("show", failed, "--json").stdout)["retried_as"] == [again["id"]]
        assert again["id"] in run("show", failed).stdout

    def test_retry_refused_while_job_is_running(self, run: Run, susan: User) -> None:
        failed = make_job(susan, "FAILURE", "FAILURE")
        running = launch_export(susan)

        result = run("retry", failed)

        assert result.exit_code == 1
        assert running.id in result.stderr

    def test_exit_code_is_that_of_worst_outcome(self, run: Run, susan: User, make_user: Callable[..., User]) -> None:
        job, done = launch_export(susan), make_job(susan, "SUCCESS")
        cancellable = launch_export(make_user("david"))

        mixed = run("cancel", job.id, done, "--json")
        unknown = run("cancel", cancellable.id, done, UNKNOWN_ID, "--json")

        assert mixed.exit_code == 1
        assert [(each["asked"], each["done"]) for each in json.loads(mixed.stdout)] == [(job.id, True), (done, False)]
        assert unknown.exit_code == 2
        assert [each["done"] for each in json.loads(unknown.stdout)] == [True, False, False]
        assert not_none(find_job(cancellable.id)).state == states.REVOKED

    def test_missing_id_is_refused(self, run: Run) -> None:
        for command in ("cancel", "retry", "show"):
            assert run(command).exit_code == 2

    def test_cancel_is_stored_while_redis_is_unavailable(
        self, run: Run, susan: User, redis_server: RedisServer
    ) -> None:
        failed, waiting = make_job(susan, "FAILURE"), make_job(susan, "PENDING", seconds_ago=1)

        with redis_server.stopped():
            cancelled, retried = run("cancel", waiting), run("retry", failed)
            seen = run("list", "--json")

        assert (cancelled.exit_code, retried.exit_code) == (0, 1)
        assert "once Redis and the database are available" in cancelled.stdout
        assert len(listed(seen)) == 2

    @pytest.mark.both_databases(each_run=False)
    def test_retry_waits_while_redis_is_unavailable(self, run: Run, susan: User, redis_server: RedisServer) -> None:
        failed = make_job(susan, "FAILURE")

        with redis_server.stopped():
            result = run("retry", failed)

        assert result.exit_code == 0
        assert "starts once Redis is back" in result.stdout

    def test_redis_error_is_reported(self, run: Run, susan: User, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_job_ids: object) -> None:
            raise redis.ConnectionError("connection refused")

        monkeypatch.setattr("microblog.monitoring.actions.cancel_jobs", fail)

        result = run("cancel", make_job(susan, "PENDING"))

        assert (result.exit_code, result.stdout) == (3, "")
        assert result.stderr == "Redis is unavailable: connection refused\n"


def test_every_command_has_json_output(run: Run, susan: User) -> None:
    for name in set(tasks.commands) - {"watch"}:  # an interactive screen; the other commands print the same data
        command = tasks.commands[name]
        assert "--json" in {option for parameter in command.params for option in parameter.opts}, name

    waiting = launch_export(susan)
    failed = make_job(None, "FAILURE")

    for arguments in (["list"], ["show", failed], ["cancel", waiting.id], ["retry", failed]):
        assert is_json(run(*arguments, "--json").stdout), arguments
        assert not is_json(run(*arguments).stdout), arguments


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_duration_has_at_most_two_units() -> None:
    expected = {0.004: "0.00s", 0.25: "0.25s", 12.345: "12.3s", 59.9: "59.9s", 60: "1m00s", 245: "4m05s"}
    expected |= {3 * 3600 + 7 * 60: "3h07m", 51 * 3600 + 59: "2d03h", -1: "0.00s"}

    assert {seconds: output.format_duration(timedelta(seconds=seconds)) for seconds in expected} == expected
