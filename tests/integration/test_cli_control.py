"""``flask tasks worker NAME …`` and what else tells workers what to do: it is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from microblog.clock import utcnow
from microblog.taskqueue import states
from microblog.taskqueue.reconcile import reconcile_all
from tests.support.cluster import Staff, staffed
from tests.support.servers import PATIENCE, Worker, wait_for

UNKNOWN = "worker99@nowhere"
PATIENTLY = ("--timeout", "60")  # for a machine that has much to do, where the usual second is too short


@pytest.fixture(scope="module")
def staff(
    base_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Staff]:
    with staffed(base_environment, tmp_path_factory.mktemp("staff"), request) as staff:
        yield staff


@pytest.fixture(scope="module")
def worker(staff: Staff) -> Worker:
    """A worker with two processes that takes from all queues."""
    return staff.hire()


@pytest.fixture
def gate(staff: Staff, tmp_path: Path) -> Iterator[Path]:
    """Jobs called `count` run until this file is there; they have ended when the test is over."""
    path = tmp_path / "gate"
    yield path
    path.touch()
    wait_until_idle(staff)


def tell(staff: Staff, *arguments: str) -> Result:
    """Run a command that workers have to answer."""
    return staff.run(*arguments, *PATIENTLY)


def wait_until_idle(staff: Staff) -> None:
    wait_for(lambda: not staff.redis_server.in_flight(), what="the processes are idle")


class TestOneWorker:
    @pytest.mark.exhaustive
    def test_it_grows_and_shrinks(self, staff: Staff, worker: Worker, gate: Path) -> None:
        grown = tell(staff, "worker", worker.name, "grow", "2")

        assert grown.exit_code == 0
        assert grown.stdout == f"{worker.name} adds 2 to its processes, within a few seconds.\n"
        assert "until the worker is restarted; --concurrency" in grown.stderr
        wait_for(lambda: staff.worker(worker)["concurrency"] == 4)
        counting = [staff.launch("count", str(gate)) for _ in range(4)]
        wait_for(lambda: {staff.state(job) for job in counting} == {states.PROGRESS}, what="all four run at once")
        gate.touch()
        wait_for(lambda: {staff.state(job) for job in counting} == {states.SUCCESS})
        wait_until_idle(staff)

        [shrunk] = json.loads(tell(staff, "worker", worker.name, "shrink", "2", "--json").stdout)

        assert (shrunk["worker"], shrunk["done"]) == (worker.name, True)
        wait_for(lambda: staff.worker(worker)["concurrency"] == 2)
        wait_for(lambda: len(staff.children(worker)) == 2)

    def test_it_keeps_one_process(self, staff: Staff, worker: Worker) -> None:
        refused = tell(staff, "worker", worker.name, "shrink", "2")

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == (
            f"{worker.name} has 2 processes, and at least one must stay; to end it, use shutdown.\n"
        )
        wait_for(lambda: staff.worker(worker)["concurrency"] == 2)

    def test_it_keeps_one_process_however_fast_it_is_told(self, staff: Staff, worker: Worker) -> None:
        wait_until_idle(staff)
        commands = (["grow"], ["shrink"], ["shrink", "2"])
        codes = [tell(staff, "worker", worker.name, *command).exit_code for command in commands]

        assert codes == [0, 0, 1]
        wait_for(lambda: len(staff.children(worker)) == 2)

    @pytest.mark.exhaustive
    def test_busy_processes_are_not_ended(self, staff: Staff, worker: Worker, gate: Path) -> None:
        counting = [staff.launch("count", str(gate)) for _ in range(2)]
        wait_for(lambda: {staff.state(job) for job in counting} == {states.PROGRESS})

        refused = tell(staff, "worker", worker.name, "shrink")

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == f"{worker.name} has no process that is idle; none was ended.\n"

    @pytest.mark.exhaustive
    def test_only_one_started_with_autoscale_scales_itself(self, staff: Staff, worker: Worker) -> None:
        scaling = staff.hire("--autoscale", "3,1", "-Q", "mail")

        refused = tell(staff, "worker", worker.name, "autoscale", "4", "2")
        done = tell(staff, "worker", scaling.name, "autoscale", "5", "2")

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert "was started without --autoscale" in refused.stderr
        assert (done.exit_code, done.stdout) == (0, f"{scaling.name} has 2 to 5 processes from now on.\n")
        told = staff.worker(scaling)
        assert (told["autoscale"]["max"], told["autoscale"]["min"]) == (5, 2)
        by_hand = tell(staff, "worker", scaling.name, "grow")
        assert (by_hand.exit_code, by_hand.stderr.count("scales itself")) == (1, 1)
        assert tell(staff, "worker", scaling.name, "autoscale", "1", "2").exit_code == 2
        assert tell(staff, "worker", scaling.name, "shutdown").exit_code == 0
        scaling.process.wait(PATIENCE)

    def test_it_takes_from_a_queue_or_no_longer(self, staff: Staff, worker: Worker) -> None:
        stopped = tell(staff, "worker", worker.name, "stop-consuming", "exports")

        assert (stopped.exit_code, stopped.stdout) == (0, f"{worker.name} takes nothing more from exports.\n")
        wait_for(lambda: staff.worker(worker)["queues"] == ["default", "mail"])
        job = staff.launch("noop", queue="exports")
        assert tell(staff, "worker", worker.name, "stop-consuming", "exports").exit_code == 1
        assert staff.state(job) == states.PENDING
        assert tell(staff, "worker", worker.name, "consume", "exports").exit_code == 0
        wait_for(lambda: staff.state(job) == states.SUCCESS)
        assert tell(staff, "worker", worker.name, "consume", "nowhere").exit_code == 2

    def test_a_paused_queue_is_not_taken_from_by_one_alone(self, staff: Staff, worker: Worker) -> None:
        tell(staff, "pause", "mail")
        refused = [tell(staff, "worker", worker.name, command, "mail") for command in ("consume", "stop-consuming")]
        tell(staff, "resume", "mail")

        assert [(result.exit_code, result.stdout) for result in refused] == [(1, "")] * 2
        assert all("mail, which is paused; flask tasks resume mail comes first" in one.stderr for one in refused)

    @pytest.mark.exhaustive
    def test_its_processes_are_replaced_and_none_loses_its_task(self, staff: Staff, worker: Worker, gate: Path) -> None:
        wait_for(lambda: len(staff.children(worker)) == 2)
        before = set(staff.children(worker))
        counting = staff.launch("count", str(gate))
        wait_for(lambda: staff.state(counting) == states.PROGRESS)

        result = tell(staff, "worker", worker.name, "restart-pool")

        assert result.exit_code == 0
        assert result.stdout == f"{worker.name} replaces its processes, each once it has ended what it runs.\n"
        wait_for(lambda: len(set(staff.children(worker)) & before) == 1, what="the idle one has gone")
        assert staff.state(counting) == states.PROGRESS
        gate.touch()
        wait_for(lambda: staff.state(counting) == states.SUCCESS)
        wait_for(lambda: len(set(staff.children(worker)) - before) == 2, what="the other one has gone, too")
        assert staff.job(counting).root.attempts == 1
        done = staff.launch("noop")
        wait_for(lambda: staff.state(done) == states.SUCCESS)

    @pytest.mark.exhaustive
    def test_it_ends_and_hands_back_what_it_cannot_finish_in_time(
        self, staff: Staff, worker: Worker, gate: Path
    ) -> None:
        tell(staff, "pause", "mail")
        leaving = staff.hire("-Q", "exports", WORKER_STOP_TIMEOUT="1")
        tell(staff, "resume", "mail")
        tell(staff, "worker", worker.name, "stop-consuming", "exports")
        counting = staff.launch("count", str(gate), queue="exports")
        wait_for(lambda: staff.state(counting) == states.PROGRESS)
        assert staff.job(counting).root.worker == leaving.name
        tell(staff, "worker", worker.name, "consume", "exports")

        result = tell(staff, "worker", leaving.name, "shutdown")

        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout.startswith(f"{leaving.name} ends; what it runs it may finish for ")
        assert leaving.process.wait(PATIENCE) is not None
        assert leaving.name not in [one["name"] for one in staff.json("workers", *PATIENTLY)]
        gate.touch()
        wait_for(lambda: reconciled(staff, counting) == states.SUCCESS, what="another worker finishes it")

    def test_one_that_does_not_exist_cannot_do_anything(self, staff: Staff, worker: Worker) -> None:
        for command in (["shutdown"], ["restart-pool"], ["grow"], ["shrink"], ["autoscale", "2", "1"]):
            result = staff.run("worker", UNKNOWN, *command, "--timeout", "0.2")

            assert (result.exit_code, result.stdout) == (2, "")
            assert result.stderr.startswith(f"There is no worker called {UNKNOWN}; known are: ")

    def test_options_of_the_worker_hold_for_what_it_is_told(self, staff: Staff, worker: Worker) -> None:
        result = staff.run("worker", "--json", *PATIENTLY, worker.name, "stop-consuming", "nowhere")

        assert result.exit_code == 1
        assert json.loads(result.stdout) == [
            {"worker": worker.name, "done": False, "outcome": "does not take from nowhere."}
        ]


def reconciled(staff: Staff, task_id: str) -> str:
    """The state of a job, after what a beat would do."""
    reconcile_all()
    return staff.state(task_id)


class TestPause:
    def test_its_jobs_wait_until_it_is_resumed(self, staff: Staff, worker: Worker) -> None:
        paused = tell(staff, "pause", "exports")
        job, other = staff.launch("noop", queue="exports"), staff.launch("noop")
        wait_for(lambda: staff.state(other) == states.SUCCESS)

        assert (paused.exit_code, paused.stderr) == (0, "")
        assert paused.stdout == f"exports is paused.\n{worker.name} takes nothing from exports.\n"
        assert staff.state(job) == states.PENDING
        again = tell(staff, "pause", "exports", "--json")
        assert (again.exit_code, json.loads(again.stdout)["outcome"]) == (1, "exports was paused already.")

        resumed = tell(staff, "resume", "exports")

        assert (resumed.exit_code, resumed.stdout.splitlines()[0]) == (0, "exports is resumed.")
        wait_for(lambda: staff.state(job) == states.SUCCESS)
        assert tell(staff, "resume", "exports").exit_code == 1

    @pytest.mark.exhaustive
    def test_a_worker_that_is_started_later_heeds_it_and_takes_only_from_its_own_queues_afterwards(
        self, staff: Staff, worker: Worker
    ) -> None:
        tell(staff, "pause", "exports")
        later = staff.hire("-Q", "exports")
        job = staff.launch("noop", queue="exports")

        assert staff.worker(later)["queues"] == []
        assert staff.state(job) == states.PENDING
        tell(staff, "resume", "exports")

        wait_for(lambda: staff.state(job) == states.SUCCESS)
        assert staff.worker(later)["queues"] == ["exports"]
        tell(staff, "worker", later.name, "shutdown")
        later.process.wait(PATIENCE)


class TestLimits:
    def test_a_rate_limit_holds_tasks_back_until_it_is_lifted(self, staff: Staff, worker: Worker) -> None:
        began = utcnow()
        limited = tell(staff, "rate-limit", "noop", "20/m")
        jobs = [staff.launch("noop") for _ in range(2)]
        wait_for(lambda: {staff.state(job) for job in jobs} == {states.SUCCESS})

        assert (limited.exit_code, limited.stdout) == (0, f"{worker.name} begins noop at most 20/m.\n")
        assert limited.stderr == (
            "A worker that is restarted forgets it; what is to last is said where the task is, as rate_limit.\n"
        )
        registered = staff.json("registered", *PATIENTLY)
        assert {task["rate_limit"] for task in registered if task["name"] == "noop"} == {"20/m"}
        # Each worker may begin one at once, and one more for every three seconds since it was told.
        second = max(staff.job(job).root.started_at or began for job in jobs)
        assert (second - began).total_seconds() > 2.5

        tell(staff, "rate-limit", "noop", "1/h")
        lifted = tell(staff, "rate-limit", "noop", "0", "--json")

        assert json.loads(lifted.stdout)[0]["outcome"] == "begins noop as often as it can."
        jobs = [staff.launch("noop") for _ in range(2)]
        wait_for(lambda: {staff.state(job) for job in jobs} == {states.SUCCESS}, what="both begin within the hour")

    def test_a_time_limit_ends_what_takes_longer(self, staff: Staff, worker: Worker, gate: Path) -> None:
        result = tell(staff, "time-limit", "count", "1", "60")
        job = staff.launch("count", str(gate))

        wait_for(lambda: staff.state(job) == states.FAILURE)

        assert "took longer" in (staff.job(job).root.error or "")
        assert result.stdout == f"{worker.name} asks count to end after 1 s and kills it after 60 s.\n"
        assert "soft_time_limit and time_limit" in result.stderr
        tell(staff, "time-limit", "count", "3300", "3600")

    def test_wrong_ones_are_refused(self, staff: Staff) -> None:
        for wrong in (
            ["rate-limit", "record", "often"],
            ["rate-limit", "record", "10/y"],
            ["rate-limit", "no_such_task", "10/s"],
            ["time-limit", "no_such_task", "1", "2"],
            ["time-limit", "count", "2", "1"],
            ["time-limit", "count", "0", "1"],
        ):
            result = staff.run(*wrong)

            assert (result.exit_code, result.stdout) == (2, ""), wrong
            assert "Error: Invalid value" in result.stderr


class TestRun:
    def test_it_is_a_job_that_is_seen_and_belongs_to_nobody(self, staff: Staff, worker: Worker) -> None:
        launched = json.loads(staff.run("run", "reconcile", "--json").stdout)

        wait_for(lambda: staff.state(launched["id"]) == states.SUCCESS)
        assert (launched["name"], launched["user"]) == ("reconcile", None)
        assert launched["id"] in [job["id"] for job in staff.json("list")]
        assert "SUCCESS" in staff.run("show", launched["id"]).stdout

    def test_arguments_are_json_or_text(self, staff: Staff, worker: Worker, tmp_path: Path) -> None:
        text = staff.run("run", "echo", "--arg", "7", "--arg", "seven", "--arg", '{"a": [1]}', "--kwarg", "name=x=y")

        job = text.stdout.partition(":")[0]
        assert (text.exit_code, text.stdout) == (0, f"{job}: launched echo.\n")
        wait_for(lambda: staff.state(job) == states.SUCCESS)
        assert staff.json("show", job)["result"] == {"args": [7, "seven", {"a": [1]}], "name": "x=y"}

    def test_a_job_that_runs_is_cancelled(self, staff: Staff, worker: Worker, gate: Path) -> None:
        counting = staff.launch("count", str(gate))
        wait_for(lambda: staff.state(counting) == states.PROGRESS)

        assert staff.run("cancel", counting).exit_code == 0

        wait_for(lambda: staff.state(counting) == states.REVOKED)
