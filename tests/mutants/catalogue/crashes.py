"""Tasks that crash their workers, and stops that are not crashes."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Promise

RECONCILE = "microblog/taskqueue/reconcile.py"
TRANSITIONS = "microblog/taskqueue/transitions.py"
WORKER = "microblog/taskqueue/worker.py"

TEST_CLAIM = "tests/integration/test_claim.py"
TEST_OUTAGES = "tests/integration/test_outages.py"
TEST_REPUBLISH = "tests/integration/test_republish.py"
TEST_PROCESSES = "tests/integration/test_worker_processes.py"
TEST_RECONCILE = "tests/integration/test_reconcile.py"
TEST_RETRY = "tests/integration/test_retry.py"
TEST_STATES = "tests/integration/test_engine_states.py"

RENEWED_FIRST = f"{TEST_PROCESSES}::test_leases_are_renewed_before_a_worker_that_was_stopped_reconciles"

CRASH_LIMIT = Promise(
    "A task that kills its worker 3 times becomes FAILURE",
    (
        Mutant(
            "crash-counted",
            "A claim after an expired lease increments `crashes`.",
            (Edit(TRANSITIONS, "_CLAIM", "crashes=task_table.c.crashes + UNCOUNTED_CRASH,", ""),),
            (
                f"{TEST_CLAIM}::test_claim_refused_while_lease_valid",
                f"{TEST_CLAIM}::test_claim_succeeds_after_process_died",
            ),
        ),
        Mutant(
            "stop-group",
            "A stop of a worker with all its processes is no crash.",
            (
                Edit(
                    WORKER,
                    "JobRequest.on_failure",
                    "release_on_shutdown if stopping else expire_lease",
                    "expire_lease",
                ),
            ),
            ("tests/integration/test_reconcile.py::test_stop_of_process_group_is_no_crash[SIGTERM-sqlite]",),
        ),
        Mutant(
            "crash-limit",
            "A task is not claimed after TASK_MAX_CRASHES crashes.",
            (
                Edit(
                    TRANSITIONS,
                    "_CRASHES_LEFT",
                    'task_table.c.crashes + UNCOUNTED_CRASH < sa.bindparam("max_crashes", type_=sa.Integer())',
                    'task_table.c.crashes + UNCOUNTED_CRASH < 1000 + sa.bindparam("max_crashes", type_=sa.Integer())',
                ),
            ),
            (f"{TEST_CLAIM}::test_claim_refused_after_three_crashes",),
        ),
        Mutant(
            "crash-ends",
            "The worker whose claim is refused for this reason fails the task.",
            (
                Edit(
                    WORKER,
                    "JobTask.before_start",
                    "self.backend.end([task_id], refusal.final_error, self.request)",
                    "pass",
                ),
            ),
            (f"{TEST_STATES}::test_task_fails_after_three_crashes[sqlite]",),
        ),
        Mutant(
            "crash-suspended",
            "A lease that expired while its machine was suspended is no crash.",
            (Edit(RECONCILE, "Reconciler._run", "abs((now - before).total_seconds() - interval) > LATE", "False"),),
            (f"{RENEWED_FIRST}[suspended-sqlite]",),
        ),
        Mutant(
            "crash-outage",
            "A lease that expired while the database was unavailable is no crash.",
            (
                Edit(RECONCILE, "Reconciler._run", "before is None or now is None or abs(", "before and now and abs("),
                Edit(RECONCILE, "Reconciler._run", "if not self._can_write(worker):", "if False:"),
            ),
            (f"{RENEWED_FIRST}[the database is unavailable-sqlite]",),
        ),
        Mutant(
            "crash-read-only",
            "A lease that expired while the database was read-only or locked is no crash.",
            (Edit(RECONCILE, "Reconciler._run", "if not self._can_write(worker):", "if False:"),),
            (f"{RENEWED_FIRST}[the database is read-only-sqlite]",),
        ),
        Mutant(
            "crash-outage-only-due",
            "After an outage, reconcile at first only publishes what is due.",
            (Edit(RECONCILE, "_current_steps", "if only_due:", "if False:"),),
            (f"{TEST_RETRY}::test_after_an_outage_only_what_is_due_is_published_at_first[sqlite]",),
        ),
        Mutant(
            "crash-message-lost",
            "A message that is lost after a crash is published again soon, however old the job is.",
            (Edit(RECONCILE, "_missing_message", "lease or step.eta", "step.eta"),),
            (f"{TEST_REPUBLISH}::test_message_lost_after_a_crash_is_republished_soon",),
        ),
        Mutant(
            "crash-reconcile",
            "Reconcile fails such a task if it has no message.",
            (
                Edit(
                    RECONCILE,
                    "_final_error",
                    'elif step.crashes + died >= current_app.config["TASK_MAX_CRASHES"]:',
                    "elif False:",
                ),
            ),
            (f"{TEST_RECONCILE}::test_task_fails_after_too_many_crashes",),
        ),
    ),
)
