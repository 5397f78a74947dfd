"""``flask tasks workers`` and the other commands that query workers, some of which may not reply."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import Result
from flask.cli import ScriptInfo

from microblog.monitoring.cli import completion
from microblog.monitoring.worker_rpc import REPLIES_EXPIRE, REPLIES_KEY, REQUEST_KEY, broadcast
from microblog.monitoring.workers import all_commands, query_workers_with
from microblog.taskqueue.queues import pause_consuming, resume_consuming
from tests.support import not_none
from tests.support.cluster import Cluster, running_cluster
from tests.support.console import flask_tasks, run_in_terminal
from tests.support.servers import Worker, wait_for

PASSWORD = "hunter2-of-redis"
SLACK = 1.0  # seconds for the command itself
REPLY_TIMEOUT = 60.0  # seconds for replies; the default of one second is too short on a busy machine
TIMEOUT_OPTION = ("--timeout", str(REPLY_TIMEOUT))
SOON = 30.0  # seconds: far less than REPLY_TIMEOUT
FAR_FUTURE = "2099-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def cluster(
    base_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    with running_cluster(base_environment, tmp_path_factory.mktemp("cluster"), request, PASSWORD) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def generalist(cluster: Cluster) -> Worker:
    """A worker with two processes that consumes from all queues."""
    return cluster.start_worker()


@pytest.fixture(scope="module")
def mailer(cluster: Cluster, generalist: Worker) -> Worker:
    """A worker with one process that consumes only from `mail` and prefetches one more message."""
    return cluster.start_worker("-Q", "mail", "--prefetch-multiplier", "2", concurrency=1)


@pytest.fixture
def frozen(mailer: Worker) -> Iterator[Worker]:
    with mailer.frozen():
        yield mailer


def test_workers_lists_details_of_each_worker(cluster: Cluster, generalist: Worker, mailer: Worker) -> None:
    began = time.monotonic()
    result = cluster.run("workers", "--json", *TIMEOUT_OPTION)
    took = time.monotonic() - began

    listed = {worker["name"]: worker for worker in json.loads(result.stdout)}
    assert (result.exit_code, result.stderr) == (0, "")
    assert took < SOON, "the command ends with the last reply"
    assert listed.keys() == {generalist.name, mailer.name}
    assert {(worker["up"], worker["pool"]) for worker in listed.values()} == {(True, "prefork")}
    one = listed[generalist.name]
    # The prefetch count grows by one for each task that waits for its ETA.
    prefetch = 2 + len(cluster.json("scheduled", *TIMEOUT_OPTION))
    assert (one["pid"], one["concurrency"], one["prefetch"]) == (generalist.process.pid, 2, prefetch)
    assert one["queues"] == ["default", "exports", "mail"]
    assert (listed[mailer.name]["concurrency"], listed[mailer.name]["queues"]) == (1, ["mail"])
    assert all(20 * 2**20 < worker["memory"] < 2**30 and worker["uptime"] < 600 for worker in listed.values())
    assert one["last_seen"].endswith("Z")


def test_workers_counts_processed_tasks(cluster: Cluster, generalist: Worker, mailer: Worker) -> None:
    def processed() -> dict[str, int]:
        return {worker["name"]: worker["processed"] for worker in cluster.json("workers", *TIMEOUT_OPTION)}

    counts_before = processed()
    jobs = [cluster.launch("noop") for _ in range(3)]
    wait_for(lambda: {cluster.state(job) for job in jobs} == {"SUCCESS"})

    # The worker may learn that a task has started only after it has ended.
    wait_for(lambda: processed() == counts_before | {generalist.name: counts_before[generalist.name] + 3})


def test_table_has_colours_on_a_terminal(cluster: Cluster, generalist: Worker, mailer: Worker) -> None:
    heading, *lines = cluster.run("workers", *TIMEOUT_OPTION).stdout.splitlines()
    on_terminal = run_in_terminal(flask_tasks("workers", *TIMEOUT_OPTION), cluster.environment)

    assert heading.split()[:3] == ["NAME", "STATE", "POOL"]
    assert [line.split()[:4] for line in lines] == [
        [generalist.name, "up", "prefork", "2"],
        [mailer.name, "up", "prefork", "1"],
    ]
    assert mailer.name in on_terminal
    assert "\x1b[" in on_terminal


def test_worker_shows_details_without_secrets(cluster: Cluster, generalist: Worker) -> None:
    details, text = cluster.worker(generalist), cluster.run("worker", generalist.name, *TIMEOUT_OPTION)

    assert details["registered"]
    assert details["settings"]["worker_prefetch_multiplier"] == 1
    assert details["settings"]["broker_url"].endswith(f"@127.0.0.1:{cluster.redis_server.port}/0")
    assert details["settings"]["result_backend"].startswith(
        "microblog.taskqueue.result_backend:DatabaseResultBackend+redis://"
    )
    assert {"active", "reserved", "scheduled", "revoked", "queues", "pool", "memory", "uptime"} <= details.keys()
    assert text.exit_code == 0
    for part in ("Concurrency", "prefork", "Active", "Reserved", "Revoked", "export_posts", "result_expires"):
        assert part in text.stdout
    assert PASSWORD not in json.dumps(details) + text.stdout


def test_worker_replies_contain_no_secret(cluster: Cluster, generalist: Worker, mailer: Worker) -> None:
    replies = query_workers_with(all_commands(), REPLY_TIMEOUT)

    assert replies.up.keys() == {generalist.name, mailer.name}
    assert PASSWORD not in repr(replies)


def test_unknown_worker_is_refused(cluster: Cluster, generalist: Worker) -> None:
    result = cluster.run("worker", "worker99@nowhere", "--json", "--timeout", "0.3")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("There is no worker called worker99@nowhere; known workers: ")
    assert generalist.name in result.stderr


def test_active_and_reserved_tasks(cluster: Cluster, mailer: Worker, release_file: Path) -> None:
    running = cluster.launch("count", str(release_file), queue="mail")
    wait_for(lambda: cluster.state(running) == "PROGRESS")
    queued = [cluster.launch("count", str(release_file), queue="mail") for _ in range(3)]
    # Each of the three processes runs one, and the mailer prefetches another.
    wait_for(lambda: len(cluster.json("active", *TIMEOUT_OPTION)) == 3)
    wait_for(lambda: len(cluster.json("reserved", *TIMEOUT_OPTION)) == 1)

    active = {task["id"]: task for task in cluster.json("active", *TIMEOUT_OPTION)}
    [waiting] = cluster.json("reserved", *TIMEOUT_OPTION)

    assert waiting["worker"] == mailer.name
    assert active[running]["name"] == "count"
    assert active[running]["args"] == [str(release_file)]
    assert active[running]["started_at"].endswith("Z")
    of_mailer = [task for task in active.values() if task["worker"] == mailer.name]
    assert [task["pid"] for task in of_mailer] == mailer.process.children()
    assert waiting["id"] in queued
    assert waiting["started_at"] is None
    assert cluster.run("active", *TIMEOUT_OPTION).stdout.count(running) == 1
    assert waiting["id"] in cluster.run("reserved", *TIMEOUT_OPTION).stdout


def test_scheduled_lists_task_with_eta(cluster: Cluster, generalist: Worker, mailer: Worker) -> None:
    task_id = cluster.app.extensions["celery"].tasks["add"].apply_async((1, 2), eta=FAR_FUTURE).id

    [found] = wait_for(lambda: cluster.json("scheduled", *TIMEOUT_OPTION))
    cluster.app.extensions["celery"].control.revoke(task_id)

    assert (found["id"], found["args"], found["worker"]) == (task_id, [1, 2], generalist.name)
    assert found["eta"].startswith("2099-01-01T00:00:00")
    assert "2099-01-01" in cluster.run("scheduled", *TIMEOUT_OPTION).stdout


def test_revoked_lists_revoked_task(cluster: Cluster, generalist: Worker, mailer: Worker) -> None:
    cluster.app.extensions["celery"].control.revoke("never-to-run")

    def found() -> list[dict[str, object]]:
        return [task for task in cluster.json("revoked", *TIMEOUT_OPTION) if task["id"] == "never-to-run"]

    wait_for(lambda: found() == [{"id": "never-to-run", "workers": [generalist.name, mailer.name]}])
    assert "never-to-run" in cluster.run("revoked", *TIMEOUT_OPTION).stdout


def test_registered_lists_tasks_with_limits(cluster: Cluster, generalist: Worker, mailer: Worker) -> None:
    registered = {entry["name"]: entry for entry in cluster.json("registered", *TIMEOUT_OPTION)}

    assert registered["export_posts"]["workers"] == [generalist.name, mailer.name]
    assert (registered["ignore_soft_limit"]["soft_time_limit"], registered["ignore_soft_limit"]["time_limit"]) == (1, 2)
    assert registered["ignore_soft_limit"]["rate_limit"] is None
    assert "export_posts" in cluster.run("registered", *TIMEOUT_OPTION).stdout


def test_queues_shows_length_age_and_consumers(cluster: Cluster, generalist: Worker, mailer: Worker) -> None:
    pause_consuming("exports")
    wait_for(lambda: cluster.worker(generalist)["queues"] == ["default", "mail"])
    jobs = [cluster.launch("export_posts", 0) for _ in range(2)]
    # The worker requeues a message that it had fetched already.
    wait_for(lambda: cluster.redis_server.waiting("exports") == 2)

    by_name = {queue["name"]: queue for queue in cluster.json("queues", *TIMEOUT_OPTION)}
    text = cluster.run("queues", *TIMEOUT_OPTION).stdout
    resume_consuming("exports")

    first = not_none(cluster.job(jobs[0]).root.published_at)
    assert list(by_name) == ["exports", "mail", "default"]
    assert by_name["exports"] == {
        "name": "exports",
        "length": 2,
        "oldest": first.isoformat().replace("+00:00", "Z"),
        "consumers": 0,
        "paused": True,
    }
    assert (by_name["mail"]["consumers"], by_name["mail"]["paused"], by_name["mail"]["oldest"]) == (2, False, None)
    assert text.splitlines()[1].split()[:2] == ["exports", "2"]
    assert "paused" in text
    wait_for(lambda: all(cluster.job(job).finished_at for job in jobs), what="the worker consumes from the queue again")


@pytest.mark.exhaustive
def test_frozen_worker_is_named_within_timeout(cluster: Cluster, generalist: Worker, frozen: Worker) -> None:
    def run_quickly(command: str) -> Result | None:
        """Return the result if the other worker replied in time and the command did not take too long.

        Either may take longer on a busy machine.
        """
        began = time.monotonic()
        result = cluster.run(command, "--timeout", "0.5")
        took = time.monotonic() - began
        assert took >= 0.5
        return result if took < 0.5 + SLACK and f"{generalist.name} does not respond" not in result.stderr else None

    def listed() -> dict[str, bool]:
        return {worker["name"]: worker["up"] for worker in cluster.json("workers", "--timeout", "0.5")}

    for command in ("workers", "active", "reserved", "scheduled", "revoked", "registered"):
        result = wait_for(partial(run_quickly, command), what=f"{command} ends in time")

        assert result is not None
        assert result.exit_code == 1
        assert result.stderr.count(f"{frozen.name} does not respond; it was last seen at 20") == 1
    wait_for(lambda: listed() == {generalist.name: True, frozen.name: False})
    assert cluster.run("queues", "--timeout", "0.5").exit_code == 0
    one = cluster.run("worker", frozen.name, "--timeout", "0.3")
    assert (one.exit_code, one.stdout) == (3, "")
    assert "does not respond" in one.stderr


@pytest.mark.exhaustive
def test_frozen_worker_drops_expired_command(cluster: Cluster, generalist: Worker, mailer: Worker) -> None:
    mailer.send_signal(signal.SIGSTOP)
    result = cluster.run("worker", mailer.name, "grow", "3", "--timeout", "0.3")
    mailer.send_signal(signal.SIGCONT)

    assert result.exit_code == 3
    wait_for(lambda: "the caller no longer waits; these commands are not run: pool_grow" in mailer.text())
    assert cluster.worker(mailer)["concurrency"] == 1


def test_concurrent_queries_get_their_own_replies(cluster: Cluster, generalist: Worker, mailer: Worker) -> None:
    answered: list[set[str]] = []

    def stored_keys() -> set[str]:
        patterns = ("microblog:rpc:*", "*reply*")
        return {key for pattern in patterns for key in cluster.redis_server.client.scan_iter(pattern)}

    def query() -> None:
        with cluster.app.app_context():
            for _ in range(5):
                replies = query_workers_with({"ping": {}}, REPLY_TIMEOUT)
                assert {reply["ping"]["ok"] for reply in replies.up.values()} == {"pong"}
                answered.append(set(replies.up))

    # Workers reply in order, so after this query no reply to an earlier test can follow.
    with cluster.app.app_context():
        query_workers_with({"ping": {}}, REPLY_TIMEOUT)
    keys_before = stored_keys()
    threads = [threading.Thread(target=query) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answered == [{generalist.name, mailer.name}] * 40
    assert stored_keys() <= keys_before


@pytest.mark.exhaustive
def test_late_reply_expires(cluster: Cluster, generalist: Worker) -> None:
    client = cluster.redis_server.client
    request, replies = client.key(REQUEST_KEY.format("late")), client.key(REPLIES_KEY.format("late"))
    client.set(request, 1)
    with cluster.app.extensions["celery"].connection_for_write() as connection:
        broadcast(connection, "late", {"ping": {}}, None)

    wait_for(lambda: client.llen(replies) == len(cluster.workers), what="all workers have replied")

    assert 0 < client.ttl(replies) <= REPLIES_EXPIRE
    client.delete(request, replies)


def test_shell_completes_names(
    cluster: Cluster, generalist: Worker, mailer: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion, "DEADLINE", REPLY_TIMEOUT)

    def completions(line: str) -> list[str]:
        *words, last = line.split(" ")
        completion = ShellComplete(cluster.app.cli, {"obj": ScriptInfo(create_app=lambda: cluster.app)}, "flask", "_F")
        return [item.value for item in completion.get_completions(words, last)]

    assert completions("tasks worker work") == [generalist.name, mailer.name]
    assert completions(f"tasks worker {mailer.name} gr") == ["grow"]
    assert completions("tasks pause ex") == ["exports"]
    assert completions("tasks run sweep_a") == ["sweep_archives"]
    assert completions("tasks rate-limit email_ex") == ["email_export"]
