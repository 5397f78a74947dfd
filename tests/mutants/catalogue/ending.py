"""That every job ends: whoever was killed, whatever was lost; and that none is tried for ever."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Promise

SWEEP = "microblog/exports/cleanup.py"
SETTINGS = "microblog/taskqueue/celery_settings.py"
MODELS = "microblog/taskqueue/models.py"
RECONCILE = "microblog/taskqueue/reconcile.py"
RESULT_BACKEND = "microblog/taskqueue/result_backend.py"
TRANSITIONS = "microblog/taskqueue/transitions.py"
WORKER = "microblog/taskqueue/worker.py"

TEST_CLAIM = "tests/integration/test_claim.py"
TEST_EXPORTS = "tests/integration/test_exports.py"
TEST_RECONCILE = "tests/integration/test_reconcile.py"
TEST_REPUBLISH = "tests/integration/test_republish.py"
TEST_STATES = "tests/integration/test_engine_states.py"

PAUSES = f"{TEST_REPUBLISH}::test_republish_pauses_grow_to_15_minutes"
PREDECESSOR = f"{TEST_RECONCILE}::test_step_ends_with_failed_predecessor"

EVERY_JOB_ENDS = Promise(
    "Every job ends: 60 s after the last fault is healed, no row waits for a worker that is gone",
    (
        Mutant(
            "lease-renewed",
            "A worker's main process renews the leases of all that it runs.",
            (Edit(WORKER, "LeaseRenewer._run", "known = renew_running_leases(worker, known)", "pass"),),
            (f"{TEST_RECONCILE}::test_lease_is_renewed_without_progress[sqlite]",),
        ),
        Mutant(
            "lease-own",
            "It renews no other worker's.",
            (
                Edit(
                    TRANSITIONS,
                    "_HELD_BY_WORKER",
                    'task_table.c.worker == sa.bindparam("by")',
                    'task_table.c.worker.is_not(None) | (task_table.c.worker == sa.bindparam("by"))',
                ),
            ),
            (f"{TEST_CLAIM}::test_lease_is_renewed_only_by_its_worker",),
        ),
        Mutant(
            "lease-progress",
            "Progress renews the lease, too.",
            (Edit(TRANSITIONS, "_PROGRESS", "lease_expires_at=EXPIRES,", ""),),
            (f"{TEST_CLAIM}::test_progress_renews_lease",),
        ),
        Mutant(
            "lease-let-go",
            "A lease that is given back is renewed no more.",
            (Edit(WORKER, "stop_renewing", "worker_state.active_requests.discard(request)", "pass"),),
            ("tests/integration/test_lease.py::test_released_lease_is_not_renewed",),
        ),
        Mutant(
            "lease-revived",
            "The lease of a process that died does not come to life with the message that is given out again.",
            (Edit(WORKER, "renew_running_leases", "running & known", "running"),),
            ("tests/integration/test_lease.py::test_expired_lease_is_not_renewed_after_redelivery",),
        ),
        Mutant(
            "child-killed",
            "A task whose process was killed may be claimed again at once.",
            (Edit(WORKER, "JobRequest.on_failure", "expire_lease(self.app.executor, self.id, self.hostname)", "pass"),),
            (f"{TEST_STATES}::test_task_runs_again_after_killing_its_process[sqlite]",),
        ),
        Mutant(
            "child-killed-message",
            "Its message goes back to the broker.",
            (Edit(SETTINGS, "_tasks", '"task_reject_on_worker_lost": True', '"task_reject_on_worker_lost": False'),),
            (f"{TEST_STATES}::test_task_runs_again_after_killing_its_process[sqlite]",),
        ),
        Mutant(
            "acknowledged-late",
            "A message is acknowledged when its task has ended, not when it begins.",
            (Edit(SETTINGS, "_tasks", '"task_acks_late": True', '"task_acks_late": False'),),
            (f"{TEST_STATES}::test_task_runs_again_after_kill_from_outside[sqlite]",),
        ),
        Mutant(
            "stop-in-time",
            "A worker that is told to stop does so within WORKER_STOP_TIMEOUT.",
            (Edit(WORKER, "make_celery", "worker_shutting_down.connect(_end_in_time, weak=False)", "pass"),),
            (f"{TEST_RECONCILE}::test_stopping_worker_releases_tasks_in_time[sqlite]",),
        ),
        Mutant(
            "stop-hands-back",
            "It hands back what it was running, which is no crash.",
            (
                Edit(
                    WORKER,
                    "JobRequest.cancel",
                    "release_on_shutdown(self.app.executor, self.id, self.hostname)",
                    "pass",
                ),
            ),
            (f"{TEST_RECONCILE}::test_stopping_worker_releases_tasks_in_time[sqlite]",),
        ),
        Mutant(
            "time-limit",
            "The main process may end what its own children hold: a task that is too slow.",
            (Edit(TRANSITIONS, "_BY_OTHERS", "sa.or_(UNHELD, ", "sa.and_(UNHELD, "),),
            (f"{TEST_STATES}::test_hard_time_limit[sqlite]",),
        ),
        Mutant(
            "cancel-heard",
            "A running task hears at its next progress that it has a cancellation request.",
            (Edit(TRANSITIONS, "store_progress", "if stored[0].cancel_requested_at is not None:", "if False:"),),
            (f"{TEST_CLAIM}::test_progress_raises_cancelled_after_cancel_request",),
        ),
        Mutant(
            "cancel-revokes",
            "It then ends as REVOKED.",
            (Edit(WORKER, "JobTask.__call__", "except Cancelled:", "except ZeroDivisionError:"),),
            (f"{TEST_STATES}::test_cancelled_job_stops_at_next_progress[sqlite]",),
        ),
        Mutant(
            "cancel-not-claimed",
            "What has a cancellation request is not begun.",
            (Edit(TRANSITIONS, "_CLAIM", "task_table.c.cancel_requested_at.is_(None),", ""),),
            (f"{TEST_CLAIM}::test_claim_refused_after_cancel_request",),
        ),
        Mutant(
            "success-goes-on",
            "A success publishes the step behind it.",
            (
                Edit(
                    RESULT_BACKEND,
                    "DatabaseResultBackend._hand_on",
                    "publish(self.app.executor, run.next_steps[::-1], result)",
                    "pass",
                ),
            ),
            (f"{TEST_STATES}::test_step_receives_result_of_previous_step[sqlite]",),
        ),
        Mutant(
            "setback-goes-on",
            "What ends badly ends the step behind it.",
            (
                Edit(
                    RESULT_BACKEND,
                    "DatabaseResultBackend._hand_on",
                    "self.store_result(next_id, result, state, traceback, wait=False)",
                    "pass",
                ),
            ),
            (f"{TEST_STATES}::test_cancelled_pending_job_does_not_run[sqlite]",),
        ),
        Mutant(
            "reconcile-unpublished",
            "Reconcile publishes what was never published.",
            (
                Edit(
                    RECONCILE,
                    "_missing_message",
                    'return "never published" if now - due_since > GRACE else ""',
                    'return ""',
                ),
            ),
            (f"{TEST_REPUBLISH}::test_unpublished_job_is_published",),
        ),
        Mutant(
            "reconcile-forgotten",
            "It publishes again what Redis forgot.",
            (Edit(RECONCILE, "_missing_message", "if broker.data_since > step.published_at:", "if False:"),),
            (f"{TEST_REPUBLISH}::test_job_is_republished_after_redis_data_loss",),
        ),
        Mutant(
            "reconcile-idle",
            "It publishes again, soon, what is missing from an empty queue.",
            (Edit(RECONCILE, "_missing_message", "if step.queue in broker.empty_queues:", "if False:"),),
            (f"{TEST_REPUBLISH}::test_job_lost_from_empty_queue_is_republished_soon",),
        ),
        Mutant(
            "reconcile-orphan",
            "It publishes again, at once, what a worker was running whose lease ran out.",
            (
                Edit(
                    RECONCILE,
                    "_missing_message",
                    "if lease is not None and step.published_at <= lease:",
                    "if False:",
                ),
            ),
            (f"{TEST_REPUBLISH}::test_orphan_is_republished_once",),
        ),
        Mutant(
            "reconcile-live",
            "It leaves alone what a live lease covers.",
            (
                Edit(
                    RECONCILE,
                    "_decide",
                    "if lease is not None and lease > now:",
                    "if False:",
                ),
            ),
            (f"{TEST_RECONCILE}::test_lease_is_renewed_without_progress[sqlite]",),
        ),
        Mutant(
            "reconcile-in-the-end",
            "It publishes again, in the end, whatever waits and never starts.",
            (Edit(RECONCILE, "_missing_message", "waited > min(pause, LONGEST_REPUBLISH)", "False"),),
            (f"{TEST_REPUBLISH}::test_waiting_job_is_not_republished_every_run",),
        ),
        Mutant(
            "reconcile-pauses",
            "It does so after pauses that grow.",
            (
                Edit(
                    RECONCILE,
                    "_missing_message",
                    "pause = max(REPUBLISH_AFTER, step.published_at - due_since)",
                    "pause = REPUBLISH_AFTER",
                ),
            ),
            (f"{PAUSES}[sqlite-300-100-0]", f"{PAUSES}[sqlite-10000-890-0]"),
        ),
        Mutant(
            "reconcile-longest-pause",
            "They do not grow beyond a quarter of an hour.",
            (Edit(RECONCILE, "_missing_message", "waited > min(pause, LONGEST_REPUBLISH)", "waited > pause"),),
            (f"{PAUSES}[sqlite-10000-910-1]",),
        ),
        Mutant(
            "reconcile-result",
            "A later step that it publishes gets what the step before returned.",
            (
                Edit(
                    RECONCILE, "_publish_again", "results = [_result_of(previous)] if previous else []", "results = []"
                ),
            ),
            (f"{TEST_RECONCILE}::test_republished_step_receives_previous_result[sqlite]",),
        ),
        Mutant(
            "reconcile-outcome",
            "It copies an outcome that Redis has and the row missed.",
            (
                Edit(
                    RECONCILE,
                    "_decide",
                    "if step.attempts and task is not None and task.has_result(step.id):",
                    "if False:",
                ),
            ),
            (f"{TEST_RECONCILE}::test_reconcile_copies_result_from_redis",),
        ),
        Mutant(
            "reconcile-failed-before",
            "It ends a step whose predecessor failed.",
            (
                Edit(
                    RECONCILE,
                    "_final_error",
                    "if previous is not None and previous.state == states.FAILURE:",
                    "if False:",
                ),
            ),
            (f"{PREDECESSOR}[sqlite-FAILURE]", f"{PREDECESSOR}[postgresql-FAILURE]"),
        ),
        Mutant(
            "reconcile-revoked-before",
            "It ends a step whose predecessor was cancelled.",
            (Edit(RECONCILE, "_final_error", " or (previous is not None and previous.state == states.REVOKED)", ""),),
            (f"{PREDECESSOR}[sqlite-REVOKED]", f"{PREDECESSOR}[postgresql-REVOKED]"),
        ),
        Mutant(
            "reconcile-cancel",
            "It carries out a cancellation that nobody is there to hear.",
            (Edit(RECONCILE, "_final_error", "step.cancel_requested_at is not None or ", ""),),
            (f"{TEST_RECONCILE}::test_reconcile_cancels_task_of_lost_worker",),
        ),
        Mutant(
            "reconcile-unknown",
            "It ends a job of a kind that no longer exists.",
            (
                Edit(
                    RECONCILE,
                    "_final_error",
                    "elif step.name not in celery_app().tasks and now - step.created_at > UNREGISTERED_GRACE:",
                    "elif False:",
                ),
            ),
            (f"{TEST_RECONCILE}::test_unknown_task_fails_after_one_hour",),
        ),
        Mutant(
            "reconcile-others",
            "A job that cannot be reconciled keeps no other waiting.",
            (Edit(RECONCILE, "_isolated", 'logger.exception("%s cannot be reconciled", step.id)', "raise"),),
            (f"{TEST_RECONCILE}::test_failed_reconcile_does_not_block_other_jobs",),
        ),
        Mutant(
            "sweep-parts",
            "A file that a killed worker was writing is deleted.",
            (Edit(MODELS, "is_attempt_current", ", Task.attempts <= attempt", ""),),
            (f"{TEST_EXPORTS}::test_parts_of_killed_worker_are_deleted",),
        ),
        Mutant(
            "sweep-superseded",
            "So is the archive of an attempt that was taken over.",
            (Edit(SWEEP, "delete_superseded", "storage.delete(path)", "pass"),),
            (f"{TEST_EXPORTS}::test_stale_attempt_does_not_replace_archive",),
        ),
        Mutant(
            "sweep-unwanted",
            "So is the archive of a job that ended otherwise.",
            (
                Edit(
                    SWEEP,
                    "delete_archives_of_failed_jobs",
                    "Task.state.in_([states.FAILURE, states.REVOKED])",
                    "Task.state.in_([])",
                ),
            ),
            (f"{TEST_EXPORTS}::test_archive_of_cancelled_job_is_deleted",),
        ),
    ),
)

NO_LOOP = Promise(
    "A task that kills its worker 3 times is FAILURE, not a loop",
    (
        Mutant(
            "crash-counted",
            "Each claim of what a dead worker held counts one crash, in the row.",
            (Edit(TRANSITIONS, "_CLAIM", "crashes=task_table.c.crashes + CRASHED,", ""),),
            (
                f"{TEST_CLAIM}::test_claim_refused_while_lease_valid",
                f"{TEST_CLAIM}::test_claim_succeeds_after_process_died",
            ),
        ),
        Mutant(
            "crash-limit",
            "After so many it is claimed no more.",
            (
                Edit(
                    TRANSITIONS,
                    "_CLAIM",
                    'task_table.c.crashes + CRASHED < sa.bindparam("max_crashes", type_=sa.Integer())',
                    'task_table.c.crashes + CRASHED < 1000 + sa.bindparam("max_crashes", type_=sa.Integer())',
                ),
            ),
            (f"{TEST_CLAIM}::test_claim_refused_after_three_crashes",),
        ),
        Mutant(
            "crash-ends",
            "The worker that may not claim it ends it.",
            (
                Edit(
                    WORKER,
                    "JobTask.before_start",
                    "self.backend.end(task_id, refusal.final_error, self.request)",
                    "pass",
                ),
            ),
            (f"{TEST_STATES}::test_task_fails_after_three_crashes[sqlite]",),
        ),
        Mutant(
            "crash-reconcile",
            "Reconcile ends it where no message is left.",
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
