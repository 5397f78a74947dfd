"""``flask tasks worker NAME …`` and the other commands that control workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from microblog.clock import utcnow
from microblog.taskqueue import states
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.cluster import Cluster
from tests.support.servers import TIMEOUT, Worker, wait_for

UNKNOWN = "worker99@nowhere"
TIMEOUT_OPTION = ("--timeout", "60")  # for a busy machine, where the default of one second is too short


@pytest.fixture(scope="module")
def worker(cluster: Cluster) -> Worker:
    """A worker with two processes that consumes from all queues."""
    return cluster.start_worker()


@pytest.fixture
def release_file(cluster: Cluster, release_file: Path) -> Iterator[Path]:
    """A file whose creation lets waiting tasks finish, which is awaited when the test ends."""
    yield release_file
    release_file.touch()
    wait_until_idle(cluster)


def control(cluster: Cluster, *arguments: str) -> Result:
    """Run a command that needs replies of workers."""
    return cluster.run(*arguments, *TIMEOUT_OPTION)


def wait_until_idle(cluster: Cluster) -> None:
    wait_for(lambda: not cluster.redis_server.in_flight(), what="the processes are idle")


class TestWorker:
    @pytest.mark.exhaustive
    def test_pool_grows_and_shrinks_by_given_number(self, cluster: Cluster, worker: Worker, release_file: Path) -> None:
        grown = control(cluster, "worker", worker.name, "grow", "2")

        assert grown.exit_code == 0
        assert grown.stdout == f"{worker.name} grows its pool by 2 within a few seconds.\n"
        assert "until the worker is restarted; --concurrency" in grown.stderr
        wait_for(lambda: cluster.worker(worker)["concurrency"] == 4)
        counting = [cluster.launch("count", str(release_file)) for _ in range(4)]
        wait_for(lambda: {cluster.state(job) for job in counting} == {states.PROGRESS}, what="all four run at once")
        release_file.touch()
        wait_for(lambda: {cluster.state(job) for job in counting} == {states.SUCCESS})
        wait_until_idle(cluster)

        [shrunk] = json.loads(control(cluster, "worker", worker.name, "shrink", "2", "--json").stdout)

        assert (shrunk["worker"], shrunk["done"]) == (worker.name, True)
        wait_for(lambda: cluster.worker(worker)["concurrency"] == 2)
        wait_for(lambda: len(worker.process.children()) == 2)

    def test_shrink_leaves_one_process(self, cluster: Cluster, worker: Worker) -> None:
        refused = control(cluster, "worker", worker.name, "shrink", "2")

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == (
            f"{worker.name} has 2 processes, and at least one must stay; to end it, use shutdown.\n"
        )
        wait_for(lambda: cluster.worker(worker)["concurrency"] == 2)

    def test_repeated_shrink_leaves_one_process(self, cluster: Cluster, worker: Worker) -> None:
        wait_until_idle(cluster)
        commands = (["grow"], ["shrink"], ["shrink", "2"])
        codes = [control(cluster, "worker", worker.name, *command).exit_code for command in commands]

        assert codes == [0, 0, 1]
        wait_for(lambda: len(worker.process.children()) == 2)

    @pytest.mark.exhaustive
    def test_shrink_refused_while_processes_are_busy(
        self, cluster: Cluster, worker: Worker, release_file: Path
    ) -> None:
        counting = [cluster.launch("count", str(release_file)) for _ in range(2)]
        wait_for(lambda: {cluster.state(job) for job in counting} == {states.PROGRESS})

        refused = control(cluster, "worker", worker.name, "shrink")

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == f"{worker.name} has no idle process; none was ended.\n"

    @pytest.mark.exhaustive
    def test_autoscale_refused_without_autoscale_option(self, cluster: Cluster, worker: Worker) -> None:
        scaling = cluster.start_worker("--autoscale", "3,1", "-Q", "mail")

        refused = control(cluster, "worker", worker.name, "autoscale", "4", "2")
        done = control(cluster, "worker", scaling.name, "autoscale", "5", "2")

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "was started without --autoscale" in refused.stderr
        assert (done.exit_code, done.stdout) == (0, f"{scaling.name} has 2 to 5 processes from now on.\n")
        details = cluster.worker(scaling)
        assert (details["autoscale"]["max"], details["autoscale"]["min"]) == (5, 2)
        grown = control(cluster, "worker", scaling.name, "grow")
        assert (grown.exit_code, grown.stderr.count("autoscales")) == (1, 1)
        assert control(cluster, "worker", scaling.name, "autoscale", "1", "2").exit_code == 2
        assert control(cluster, "worker", scaling.name, "shutdown").exit_code == 0
        scaling.process.wait(TIMEOUT)

    def test_consume_and_stop_consuming(self, cluster: Cluster, worker: Worker) -> None:
        stopped = control(cluster, "worker", worker.name, "stop-consuming", "exports")

        assert (stopped.exit_code, stopped.stdout) == (0, f"{worker.name} no longer consumes from exports.\n")
        wait_for(lambda: cluster.worker(worker)["queues"] == ["default", "mail"])
        job = cluster.launch("noop", queue="exports")
        assert control(cluster, "worker", worker.name, "stop-consuming", "exports").exit_code == 1
        assert cluster.state(job) == states.PENDING
        assert control(cluster, "worker", worker.name, "consume", "exports").exit_code == 0
        wait_for(lambda: cluster.state(job) == states.SUCCESS)
        assert control(cluster, "worker", worker.name, "consume", "nowhere").exit_code == 2

    def test_consume_refused_for_paused_queue(self, cluster: Cluster, worker: Worker) -> None:
        control(cluster, "pause", "mail")
        refused = [
            control(cluster, "worker", worker.name, command, "mail") for command in ("consume", "stop-consuming")
        ]
        control(cluster, "resume", "mail")

        assert [(result.exit_code, result.stdout) for result in refused] == [(1, "")] * 2
        assert all("mail, which is paused; run flask tasks resume mail first" in one.stderr for one in refused)

    @pytest.mark.exhaustive
    def test_restart_pool_loses_no_task(self, cluster: Cluster, worker: Worker, release_file: Path) -> None:
        wait_for(lambda: len(worker.process.children()) == 2)
        old_children = set(worker.process.children())
        counting = cluster.launch("count", str(release_file))
        wait_for(lambda: cluster.state(counting) == states.PROGRESS)

        result = control(cluster, "worker", worker.name, "restart-pool")

        assert result.exit_code == 0
        assert result.stdout == f"{worker.name} replaces its processes, each after it has finished its current task.\n"
        wait_for(lambda: len(set(worker.process.children()) & old_children) == 1, what="the idle process is replaced")
        assert cluster.state(counting) == states.PROGRESS
        release_file.touch()
        wait_for(lambda: cluster.state(counting) == states.SUCCESS)
        wait_for(lambda: len(set(worker.process.children()) - old_children) == 2, what="the busy process is replaced")
        assert cluster.job(counting).root.attempts == 1
        done = cluster.launch("noop")
        wait_for(lambda: cluster.state(done) == states.SUCCESS)

    @pytest.mark.exhaustive
    def test_shutdown_releases_unfinished_task(self, cluster: Cluster, worker: Worker, release_file: Path) -> None:
        control(cluster, "pause", "mail")
        leaving = cluster.start_worker("-Q", "exports", WORKER_STOP_TIMEOUT="1")
        control(cluster, "resume", "mail")
        control(cluster, "worker", worker.name, "stop-consuming", "exports")
        counting = cluster.launch("count", str(release_file), queue="exports")
        wait_for(lambda: cluster.state(counting) == states.PROGRESS)
        assert cluster.job(counting).root.worker == leaving.name
        control(cluster, "worker", worker.name, "consume", "exports")

        result = control(cluster, "worker", leaving.name, "shutdown")

        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith(f"{leaving.name} stops; running tasks have ")
        assert leaving.process.wait(TIMEOUT) is not None
        assert leaving.name not in [one["name"] for one in cluster.json("workers", *TIMEOUT_OPTION)]
        release_file.touch()
        wait_for(lambda: reconciled(cluster, counting) == states.SUCCESS, what="another worker finishes it")

    def test_unknown_worker_is_refused(self, cluster: Cluster, worker: Worker) -> None:
        for command in (["shutdown"], ["restart-pool"], ["grow"], ["shrink"], ["autoscale", "2", "1"]):
            result = cluster.run("worker", UNKNOWN, *command, "--timeout", "0.2")

            assert (result.exit_code, result.stdout) == (2, "")
            assert result.stderr.startswith(f"There is no worker called {UNKNOWN}; known workers: ")

    def test_group_options_apply_to_subcommand(self, cluster: Cluster, worker: Worker) -> None:
        result = cluster.run("worker", "--json", *TIMEOUT_OPTION, worker.name, "stop-consuming", "nowhere")

        assert result.exit_code == 1
        assert json.loads(result.stdout) == [
            {"worker": worker.name, "done": False, "outcome": "does not consume from nowhere."}
        ]


def reconciled(cluster: Cluster, task_id: str) -> str:
    """Reconcile, as the periodic task does, and return the state of a job."""
    reconcile_all()
    return cluster.state(task_id)


class TestPause:
    def test_jobs_wait_until_queue_is_resumed(self, cluster: Cluster, worker: Worker) -> None:
        paused = control(cluster, "pause", "exports")
        job, other = cluster.launch("noop", queue="exports"), cluster.launch("noop")
        wait_for(lambda: cluster.state(other) == states.SUCCESS)

        assert (paused.exit_code, paused.stderr) == (0, "")
        assert paused.stdout == f"exports is paused.\n{worker.name} does not consume from exports.\n"
        assert cluster.state(job) == states.PENDING
        again = control(cluster, "pause", "exports", "--json")
        assert (again.exit_code, json.loads(again.stdout)["outcome"]) == (1, "exports was paused already.")

        resumed = control(cluster, "resume", "exports")

        assert (resumed.exit_code, resumed.stdout.splitlines()[0]) == (0, "exports is resumed.")
        wait_for(lambda: cluster.state(job) == states.SUCCESS)
        assert control(cluster, "resume", "exports").exit_code == 1

    @pytest.mark.exhaustive
    def test_pause_applies_to_worker_started_later(self, cluster: Cluster, worker: Worker) -> None:
        control(cluster, "pause", "exports")
        later = cluster.start_worker("-Q", "exports")
        job = cluster.launch("noop", queue="exports")

        assert cluster.worker(later)["queues"] == []
        assert cluster.state(job) == states.PENDING
        control(cluster, "resume", "exports")

        wait_for(lambda: cluster.state(job) == states.SUCCESS)
        assert cluster.worker(later)["queues"] == ["exports"]
        control(cluster, "worker", later.name, "shutdown")
        later.process.wait(TIMEOUT)


class TestLimits:
    def test_rate_limit_delays_tasks_until_removed(self, cluster: Cluster, worker: Worker) -> None:
        began = utcnow()
        limited = control(cluster, "rate-limit", "noop", "20/m")
        jobs = [cluster.launch("noop") for _ in range(2)]
        wait_for(lambda: {cluster.state(job) for job in jobs} == {states.SUCCESS})

        assert (limited.exit_code, limited.stdout) == (0, f"{worker.name} limits noop to 20/m.\n")
        assert limited.stderr == (
            "This lasts until the worker is restarted; to make it permanent, set rate_limit of the task.\n"
        )
        registered = cluster.json("registered", *TIMEOUT_OPTION)
        assert {task["rate_limit"] for task in registered if task["name"] == "noop"} == {"20/m"}
        # Each worker may start one task at once, and another every three seconds.
        second = max(cluster.job(job).root.started_at or began for job in jobs)
        assert (second - began).total_seconds() > 2.5

        control(cluster, "rate-limit", "noop", "1/h")
        lifted = control(cluster, "rate-limit", "noop", "0", "--json")

        assert json.loads(lifted.stdout)[0]["outcome"] == "runs noop without a rate limit."
        jobs = [cluster.launch("noop") for _ in range(2)]
        wait_for(
            lambda: {cluster.state(job) for job in jobs} == {states.SUCCESS},
            what="both tasks run without waiting an hour",
        )

    def test_time_limit_stops_slow_task(self, cluster: Cluster, worker: Worker, release_file: Path) -> None:
        result = control(cluster, "time-limit", "count", "1", "60")
        job = cluster.launch("count", str(release_file))

        wait_for(lambda: cluster.state(job) == states.FAILURE)

        assert "took longer" in (cluster.job(job).root.error or "")
        assert result.stdout == f"{worker.name} asks count to end after 1 s and kills it after 60 s.\n"
        assert "soft_time_limit and time_limit" in result.stderr
        control(cluster, "time-limit", "count", "3300", "3600")

    def test_invalid_limits_are_refused(self, cluster: Cluster) -> None:
        for wrong in (
            ["rate-limit", "record", "often"],
            ["rate-limit", "record", "10/y"],
            ["rate-limit", "no_such_task", "10/s"],
            ["time-limit", "no_such_task", "1", "2"],
            ["time-limit", "count", "2", "1"],
            ["time-limit", "count", "0", "1"],
        ):
            result = cluster.run(*wrong)

            assert (result.exit_code, result.stdout) == (2, ""), wrong
            assert "Error: Invalid value" in result.stderr


class TestRun:
    def test_launched_job_is_listed_without_user(self, cluster: Cluster, worker: Worker) -> None:
        launched = json.loads(cluster.run("run", "sweep_archives", "--json").stdout)

        wait_for(lambda: cluster.state(launched["id"]) == states.SUCCESS)
        assert (launched["name"], launched["user"]) == ("sweep_archives", None)
        assert launched["id"] in [job["id"] for job in cluster.json("list")]
        assert "SUCCESS" in cluster.run("show", launched["id"]).stdout

    def test_arguments_are_json_or_text(self, cluster: Cluster, worker: Worker, tmp_path: Path) -> None:
        text = cluster.run("run", "echo", "--arg", "7", "--arg", "seven", "--arg", '{"a": [1]}', "--kwarg", "name=x=y")

        job = text.stdout.partition(":")[0]
        assert (text.exit_code, text.stdout) == (0, f"{job}: launched echo.\n")
        wait_for(lambda: cluster.state(job) == states.SUCCESS)
        assert cluster.json("show", job)["result"] == {"args": [7, "seven", {"a": [1]}], "name": "x=y"}

    def test_running_job_is_cancelled(self, cluster: Cluster, worker: Worker, release_file: Path) -> None:
        counting = cluster.launch("count", str(release_file))
        wait_for(lambda: cluster.state(counting) == states.PROGRESS)

        assert cluster.run("cancel", counting).exit_code == 0

        wait_for(lambda: cluster.state(counting) == states.REVOKED)


@pytest.mark.exhaustive
def test_signal_reaches_worker_and_its_children(cluster: Cluster, worker: Worker) -> None:
    wait_for(lambda: len(worker.process.children()) == 2)
    processes = [worker.process.pid, *worker.process.children()]

    def all_are(stopped: bool) -> bool:
        states_of_processes = [Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] for pid in processes]
        return all((state == "T") is stopped for state in states_of_processes)

    with worker.frozen():
        wait_for(lambda: all_are(stopped=True), what="the worker and its children are suspended")
    wait_for(lambda: all_are(stopped=False), what="they continue")
