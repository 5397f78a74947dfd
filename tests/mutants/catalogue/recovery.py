"""Recovery: every job ends, and no task crashes workers without limit."""

from __future__ import annotations

from tests.mutants.catalogue.rows import ANY_VALUE
from tests.mutants.mutant import Edit, Mutant, Promise

ACTIONS = "microblog/monitoring/actions.py"
CLEANUP = "microblog/exports/cleanup.py"
EXPORTS_TASKS = "microblog/exports/tasks.py"
SETTINGS = "microblog/taskqueue/celery_settings.py"
QUEUES = "microblog/taskqueue/queues.py"
RECONCILE = "microblog/taskqueue/reconcile.py"
RESULT_BACKEND = "microblog/taskqueue/result_backend.py"
STORAGE = "microblog/storage.py"
CONSUMER = "microblog/taskqueue/consumer.py"
TRANSITIONS = "microblog/taskqueue/transitions.py"
WORKER = "microblog/taskqueue/worker.py"

TEST_MASS_ACTIONS = "tests/integration/test_mass_actions.py"
TEST_CLAIM = "tests/integration/test_claim.py"
TEST_EXPORTS = "tests/integration/test_exports.py"
TEST_PROCESSES = "tests/integration/test_worker_processes.py"
TEST_RECONCILE = "tests/integration/test_reconcile.py"
TEST_REPUBLISH = "tests/integration/test_republish.py"
TEST_STATES = "tests/integration/test_engine_states.py"
TEST_STORAGE = "tests/unit/test_storage.py"

PAUSES = f"{TEST_REPUBLISH}::test_republish_pauses_grow_to_15_minutes"
LEFT_OUT = "test_queue_of_long_tasks_is_left_out_while_they_have_all_processes_but_one"
PREDECESSOR = f"{TEST_RECONCILE}::test_step_ends_with_failed_predecessor"

EVERY_JOB_ENDS = Promise(
    "Every job ends: 60 s after the last fault is repaired, no row waits for a worker that no longer runs",
    (
        Mutant(
            "lease-renewed",
            "The main process of a worker renews the leases of all tasks that it runs.",
            (Edit(WORKER, "LeaseRenewer._run", "running = renew_running_leases(worker, running)", "pass"),),
            (f"{TEST_RECONCILE}::test_lease_is_renewed_without_progress[sqlite]",),
        ),
        Mutant(
            "lease-own",
            "A worker does not renew the leases of other workers.",
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
            "Progress renews the lease.",
            (Edit(TRANSITIONS, "_PROGRESS", "lease_expires_at=EXPIRES,", ""),),
            (f"{TEST_CLAIM}::test_progress_renews_lease",),
        ),
        Mutant(
            "lease-released",
            "A released lease is not renewed.",
            (Edit(WORKER, "stop_renewing", "active_requests.discard(request)", "pass"),),
            ("tests/integration/test_lease.py::test_released_lease_is_not_renewed",),
        ),
        Mutant(
            "lease-redelivery",
            "Redelivery of the message does not renew the lease of a dead process.",
            (Edit(WORKER, "renew_running_leases", "running & previous", "running"),),
            ("tests/integration/test_lease.py::test_expired_lease_is_not_renewed_after_redelivery",),
        ),
        Mutant(
            "child-killed",
            "A task whose process was killed can be claimed again immediately.",
            (Edit(WORKER, "JobRequest.on_failure", "end_lease(self.app.executor, self.id, self.hostname)", "pass"),),
            (f"{TEST_STATES}::test_task_runs_again_after_killing_its_process[sqlite]",),
        ),
        Mutant(
            "child-killed-message",
            "The message of a task whose process was killed is requeued.",
            (Edit(SETTINGS, "_tasks", '"task_reject_on_worker_lost": True', '"task_reject_on_worker_lost": False'),),
            (f"{TEST_STATES}::test_task_runs_again_after_killing_its_process[sqlite]",),
        ),
        Mutant(
            "acks-late",
            "A message is acknowledged after its task has finished.",
            (Edit(SETTINGS, "_tasks", '"task_acks_late": True', '"task_acks_late": False'),),
            (f"{TEST_STATES}::test_task_runs_again_after_kill_from_outside[sqlite]",),
        ),
        Mutant(
            "stop-timeout",
            "A stopping worker exits within WORKER_STOP_TIMEOUT.",
            (
                Edit(
                    WORKER,
                    "make_celery",
                    "signals.worker_shutting_down.connect(_force_shutdown_later, weak=False)",
                    "pass",
                ),
            ),
            (f"{TEST_RECONCILE}::test_stopping_worker_releases_tasks_in_time[sqlite]",),
        ),
        Mutant(
            "stop-releases",
            "A stopping worker releases its running tasks, and these do not count as crashes.",
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
            "The main process of a worker can fail a task that exceeds its hard time limit.",
            (Edit(TRANSITIONS, "_BY_OTHERS", "sa.or_(UNHELD, ", "sa.and_(UNHELD, "),),
            (f"{TEST_STATES}::test_task_fails_at_hard_time_limit[sqlite]",),
        ),
        Mutant(
            "cancel-at-progress",
            "A running task detects a cancellation request at its next progress update.",
            (Edit(TRANSITIONS, "store_progress", "if stored[0].cancel_requested_at is not None:", "if False:"),),
            (f"{TEST_CLAIM}::test_progress_raises_cancelled_after_cancel_request",),
        ),
        Mutant(
            "cancel-revokes",
            "A task that detects a cancellation request ends as REVOKED.",
            (Edit(WORKER, "JobTask.__call__", "except Cancelled:", "except ZeroDivisionError:"),),
            (f"{TEST_STATES}::test_cancelled_job_stops_at_next_progress[sqlite]",),
        ),
        Mutant(
            "cancel-not-claimed",
            "A task with a cancellation request is not claimed.",
            (Edit(TRANSITIONS, "_CLAIM", "task_table.c.cancel_requested_at.is_(None),", ""),),
            (f"{TEST_CLAIM}::test_claim_refused_after_cancel_request",),
        ),
        Mutant(
            "cancel-messages",
            "The messages of jobs that operators cancel are removed from their queues.",
            (Edit(ACTIONS, "apply_in_batches", "remove_messages(cancelled)", "pass"),),
            (f"{TEST_MASS_ACTIONS}::TestBatches::test_cancel_leaves_no_message[sqlite]",),
        ),
        Mutant(
            "cancel-window",
            "Removing messages skips none of those that stay in the queue.",
            (Edit(QUEUES, "remove_messages", "start += len(window) - taken", "start += len(window)"),),
            (f"{TEST_MASS_ACTIONS}::TestRemovingMessages::test_only_messages_of_given_tasks_are_removed",),
        ),
        Mutant(
            "lock-order",
            "Statements that change several rows lock them in the order of their ids, so that none ends in a deadlock.",
            (Edit(TRANSITIONS, "_in_order", ".order_by(task_table.c.id)", ""),),
            (f"{TEST_MASS_ACTIONS}::test_rows_of_batch_are_locked_in_order_of_ids[cancel-postgresql]",),
        ),
        Mutant(
            "success-publishes-next",
            "A success publishes the next step.",
            (
                Edit(
                    RESULT_BACKEND,
                    "DatabaseResultBackend._advance_chain",
                    "publish(self.app.executor, claim.next_steps[::-1], result)",
                    "pass",
                ),
            ),
            (f"{TEST_STATES}::test_step_receives_result_of_previous_step[sqlite]",),
        ),
        Mutant(
            "failure-ends-next",
            "A failure or cancellation ends the following steps with the same state.",
            (
                Edit(
                    RESULT_BACKEND,
                    "DatabaseResultBackend._advance_chain",
                    "self._store_state(Writer.of(next_ids, None), result, state, traceback, None, wait=False)",
                    "pass",
                ),
            ),
            (f"{TEST_STATES}::test_cancelled_pending_job_does_not_run[sqlite]",),
        ),
        Mutant(
            "reconcile-unpublished",
            "Reconcile publishes a task that was never published.",
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
            "reconcile-empty-queue",
            "Reconcile soon republishes a task whose message is missing from an empty queue.",
            (Edit(QUEUES, "consumed_until", "if head else now", ""),),
            (f"{TEST_REPUBLISH}::test_job_lost_from_empty_queue_is_republished_soon",),
        ),
        Mutant(
            "reconcile-orphan",
            "Reconcile immediately republishes a running task whose lease has expired.",
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
            "reconcile-given-back",
            "Reconcile does not republish such a task if its message was given back to the queue.",
            (Edit(RECONCILE, "_missing_message", '"" if given_back else ', ""),),
            (f"{TEST_REPUBLISH}::test_orphan_whose_message_was_given_back_is_not_republished[sqlite]",),
        ),
        Mutant(
            "reconcile-live",
            "Reconcile does not touch a task with a valid lease.",
            (Edit(RECONCILE, "_may_need_repair", "Task.lease_expires_at <= now", "sa.true()"),),
            (f"{TEST_RECONCILE}::test_lease_is_renewed_without_progress[sqlite]",),
        ),
        *ANY_VALUE,
        Mutant(
            "reconcile-in-worker",
            "A worker reconciles beside its tasks, without beat.",
            (
                Edit(
                    WORKER,
                    "make_celery",
                    "[LeaseRenewer, QueueOrderStep, Reconciler]",
                    "[LeaseRenewer, QueueOrderStep]",
                ),
            ),
            (f"{TEST_PROCESSES}::test_busy_worker_reconciles_without_beat[sqlite]",),
        ),
        Mutant(
            "long-tasks",
            "Long tasks leave one process of a worker to others.",
            (Edit(QUEUES, "QueueOrder.consume", "long_tasks < self.pool.num_processes - 1", "True"),),
            (f"{TEST_PROCESSES}::{LEFT_OUT}[sqlite]",),
        ),
        Mutant(
            "reconcile-waiting",
            "Reconcile republishes a task whose message has left its queue and that no worker has claimed.",
            (Edit(RECONCILE, "_missing_message", "now - expected > pause", "False"),),
            (f"{TEST_REPUBLISH}::test_message_that_left_its_queue_is_lost",),
        ),
        Mutant(
            "reconcile-backlog",
            "Reconcile does not republish a task whose message waits in its queue, however long that is.",
            (
                Edit(
                    RECONCILE,
                    "_may_need_repair",
                    "Task.published_at < until - GRACE",
                    "sa.true()",
                ),
                Edit(RECONCILE, "_missing_message", "or until - expected <= GRACE", ""),
            ),
            (f"{TEST_REPUBLISH}::test_job_in_its_queue_is_not_republished",),
        ),
        Mutant(
            "reconcile-pauses",
            "The pauses between these republications grow.",
            (
                Edit(
                    RECONCILE,
                    "_missing_message",
                    "max(GRACE, step.published_at - due_since)",
                    "GRACE",
                ),
            ),
            (f"{PAUSES}[sqlite-300-100-0]", f"{PAUSES}[sqlite-10000-850-0]"),
        ),
        Mutant(
            "reconcile-longest-pause",
            "These pauses do not exceed 15 minutes.",
            (Edit(RECONCILE, "_missing_message", "), LONGEST_REPUBLISH)", "), timedelta.max)"),),
            (f"{PAUSES}[sqlite-10000-910-1]",),
        ),
        Mutant(
            "reconcile-result",
            "A republished later step receives the result of the previous step.",
            (
                Edit(
                    RECONCILE, "_publish_again", "results = [_result_of(previous)] if previous else []", "results = []"
                ),
            ),
            (f"{TEST_RECONCILE}::test_republished_step_receives_previous_result[sqlite]",),
        ),
        Mutant(
            "reconcile-outcome",
            "Reconcile copies a terminal state that is in Redis but not in the row.",
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
            "reconcile-predecessor-failed",
            "Reconcile fails a step whose predecessor failed.",
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
            "reconcile-predecessor-revoked",
            "Reconcile revokes a step whose predecessor was cancelled.",
            (Edit(RECONCILE, "_final_error", " or (previous is not None and previous.state == states.REVOKED)", ""),),
            (f"{PREDECESSOR}[sqlite-REVOKED]", f"{PREDECESSOR}[postgresql-REVOKED]"),
        ),
        Mutant(
            "reconcile-cancel",
            "Reconcile completes the cancellation of a task that no worker runs.",
            (Edit(RECONCILE, "_final_error", "step.cancel_requested_at is not None or ", ""),),
            (f"{TEST_RECONCILE}::test_reconcile_cancels_task_of_lost_worker",),
        ),
        Mutant(
            "reconcile-unregistered",
            "Reconcile fails a task whose name is no longer registered.",
            (
                Edit(
                    RECONCILE,
                    "_final_error",
                    "elif step.name not in celery_app().tasks and _known_for(step, now) > UNREGISTERED_GRACE:",
                    "elif False:",
                ),
            ),
            (f"{TEST_RECONCILE}::test_unknown_task_fails_after_one_hour",),
        ),
        Mutant(
            "reconcile-fork",
            "No process is forked while the thread that reconciles uses a connection.",
            (
                Edit(
                    RECONCILE,
                    "reconcile_in_turn",
                    "with _fork_lock:\n        if not client.set",
                    "if True:\n        if not client.set",
                ),
            ),
            (f"{TEST_RECONCILE}::test_connections_are_used_under_the_lock_against_fork[sqlite]",),
        ),
        Mutant(
            "reconcile-isolation",
            "An error while reconciling one job does not block the others.",
            (
                Edit(
                    RECONCILE,
                    "_isolated",
                    'logger.exception("%s cannot be reconciled now; the next run tries again", step.id)',
                    "raise",
                ),
            ),
            (f"{TEST_RECONCILE}::test_failed_reconcile_does_not_block_other_jobs",),
        ),
        Mutant(
            "cleanup-parts",
            "The partial file of a killed worker is deleted by the next attempt.",
            (Edit(EXPORTS_TASKS, "export_posts", "storage.delete(earlier)", "pass"),),
            (f"{TEST_EXPORTS}::test_next_attempt_deletes_files_of_earlier_ones",),
        ),
        Mutant(
            "cleanup-row-first",
            "An archive has a row before its file is written, so that the file is found whatever is killed.",
            (Edit(EXPORTS_TASKS, "export_posts", "record(**row)", "pass"),),
            (f"{TEST_EXPORTS}::test_interrupted_export_leaves_no_transaction",),
        ),
        Mutant(
            "cleanup-superseded",
            "An attempt whose file was deleted by the next one does not complete it.",
            (Edit(STORAGE, "FolderStorage.delete", "self._part(path).unlink(missing_ok=True)", "pass"),),
            (f"{TEST_STORAGE}::test_deleted_file_does_not_appear[folder]",),
        ),
        Mutant(
            "cleanup-unfinished",
            "The archive of a failed or cancelled job is deleted.",
            (
                Edit(
                    CLEANUP,
                    "delete_archives_of_failed_exports",
                    "Task.state.in_([states.FAILURE, states.REVOKED])",
                    "Task.state.in_([])",
                ),
            ),
            (f"{TEST_EXPORTS}::test_files_of_cancelled_job_are_deleted",),
        ),
        Mutant(
            "unknown-task",
            "A job whose message reaches a worker of another release waits for one that has its task.",
            (
                Edit(
                    CONSUMER,
                    "Consumer.on_unknown_task",
                    "return_message(self.app.executor, task_id)",
                    "super().on_unknown_task(body, message, exc)",
                ),
            ),
            ("tests/integration/test_version_skew.py::test_waiting_job_of_unknown_task_keeps_waiting[sqlite]",),
        ),
    ),
)
