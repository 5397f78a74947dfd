"""Claims and fencing: no task runs twice at the same time, and no mail is sent twice."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Promise

BUCKET = "microblog/bucket.py"
EXPORTS_MODELS = "microblog/exports/models.py"
SENDING = "microblog/mail/sending.py"
STORAGE = "microblog/storage.py"
RESULT_BACKEND = "microblog/taskqueue/result_backend.py"
TRANSITIONS = "microblog/taskqueue/transitions.py"
WORKER = "microblog/taskqueue/worker.py"

TEST_BUCKET = "tests/integration/test_bucket.py"
TEST_CLAIM = "tests/integration/test_claim.py"
TEST_EXPORTS = "tests/integration/test_exports.py"
TEST_EXPORT_MAIL = "tests/integration/test_export_mail.py"
TEST_MAIL = "tests/integration/test_mail.py"
TEST_RECONCILE = "tests/integration/test_reconcile.py"
TEST_REPUBLISH = "tests/integration/test_republish.py"
TEST_STORAGE = "tests/unit/test_storage.py"

TAKEN_OVER = "test_store_result_is_fenced_after_takeover"
ACCEPTED = f"{TEST_EXPORT_MAIL}::test_accepted_mail_is_not_resent_or_revoked"
CONCURRENT_RECONCILE = f"{TEST_REPUBLISH}::test_concurrent_reconcile_publishes_once"

ONE_MAIL = Promise(
    "One archive mail per export, whatever is killed or repeated; a kill in the instant between the mail server's 250 "
    "and the commit of its record may repeat it, with the same Message-ID",
    (
        Mutant(
            "claim-unheld",
            "A task with a valid lease is not claimed again.",
            (Edit(TRANSITIONS, "_CLAIM", "UNHELD,", ""),),
            (
                f"{TEST_CLAIM}::test_concurrent_claims_have_one_winner",
                f"{TEST_CLAIM}::test_claim_refused_while_lease_valid",
            ),
        ),
        Mutant(
            "fence",
            "A result from an earlier attempt is not stored in the row.",
            (
                Edit(
                    TRANSITIONS,
                    "_BY_HOLDER",
                    'task_table.c.attempts == sa.bindparam("attempt")',
                    'task_table.c.attempts >= sa.bindparam("attempt")',
                ),
            ),
            (f"{TEST_CLAIM}::{TAKEN_OVER}",),
        ),
        Mutant(
            "fence-redis",
            "A result from an earlier attempt is not stored in Redis.",
            (Edit(RESULT_BACKEND, "_STORE", "older or ", ""),),
            (f"{TEST_CLAIM}::test_frozen_worker_does_not_overwrite_progress",),
        ),
        Mutant(
            "fence-archive",
            "The archive of an earlier attempt does not replace that of a later one.",
            (Edit(EXPORTS_MODELS, "record", ", where=Archive.attempt <= insert.excluded.attempt", ""),),
            (f"{TEST_EXPORTS}::test_stale_attempt_does_not_replace_archive",),
        ),
        Mutant(
            "fence-progress",
            "A superseded attempt receives ClaimLost at its next progress update.",
            (Edit(TRANSITIONS, "store_progress", 'raise ClaimLost(f"{claim.task_id} was taken over")', "return"),),
            (f"{TEST_CLAIM}::test_progress_raises_claim_lost_after_takeover",),
        ),
        Mutant(
            "end-unheld-only",
            "A process cannot end a task that another worker holds.",
            (Edit(TRANSITIONS, "_BY_OTHERS", "sa.or_(UNHELD, ", "sa.or_(UNFINISHED, "),),
            (f"{TEST_CLAIM}::test_claimed_task_is_not_ended_by_others",),
        ),
        Mutant(
            "publish-once",
            "Of several concurrent publications of a row, only one sends a message.",
            (Edit(TRANSITIONS, "_PUBLISHED", ", _EXPECTED", ""),),
            tuple(
                f"{CONCURRENT_RECONCILE}[{database}-{again}]"
                for database in ("sqlite", "postgresql")
                for again in (False, True)
            ),
        ),
        Mutant(
            "recover-result",
            "A new attempt first recovers the result of the previous one.",
            (
                Edit(
                    WORKER,
                    "JobTask._claim",
                    "if claim is not None and claim.attempt > 1 and self._try_recover_result(task_id):",
                    "if False:",
                ),
            ),
            (f"{TEST_RECONCILE}::test_stored_result_is_reused_after_crash[sqlite]",),
        ),
        Mutant(
            "success-before-next",
            "The next step is published after the success of the previous one is stored.",
            (
                Edit(
                    WORKER,
                    "JobTask.__call__",
                    "claim.next_steps, self.request.chain = self.request.chain, None",
                    "pass",
                ),
            ),
            (f"{TEST_RECONCILE}::test_next_step_waits_for_committed_success",),
        ),
        Mutant(
            "mail-check-claim",
            "The claim check rejects a run that was taken over or has ended.",
            (
                Edit(
                    TRANSITIONS,
                    "check_claim",
                    'raise ClaimLost(f"{claim.task_id} was taken over or has ended")',
                    "return",
                ),
            ),
            (f"{TEST_CLAIM}::test_check_claim_raises_after_takeover_cancel_request_and_end",),
        ),
        Mutant(
            "mail-dedup",
            "A mail that is recorded as sent is not sent again.",
            (Edit(SENDING, "deliver", "if task.find_completed_result(task.task_id) is None:", "if True:"),),
            (f"{TEST_MAIL}::test_duplicate_message_sends_one_mail",),
        ),
        Mutant(
            "mail-recorded",
            "A mail that the server accepted is recorded as sent.",
            (Edit(SENDING, "_send", "_record(task.task_id, str(message.msgId))", "pass"),),
            (f"{TEST_MAIL}::test_duplicate_message_sends_one_mail",),
        ),
        Mutant(
            "mail-stop",
            "A stop of the worker does not end the process that sends a mail before it has recorded that.",
            (Edit(SENDING, "_stop_deferred", "lambda number, _frame: received.append(number)", "signal.SIG_DFL"),),
            (f"{TEST_EXPORT_MAIL}::test_stop_of_process_group_does_not_repeat_a_mail",),
        ),
        Mutant(
            "mail-cold-stop",
            "A worker that releases a task at once kills its process, which may defer SIGTERM.",
            (Edit(WORKER, "JobRequest.cancel", 'signal or "KILL"', "signal"),),
            (f"{TEST_EXPORT_MAIL}::test_cold_stop_ends_the_process_that_sends_before_another_sends",),
        ),
        Mutant(
            "mail-recorded-later",
            "The record is written as soon as the database is available again.",
            (Edit(SENDING, "_record", "except DatabaseUnavailable:", "except ZeroDivisionError:"),),
            (f"{TEST_MAIL}::test_sent_mail_is_recorded_after_database_outage",),
        ),
        Mutant(
            "mail-recovered",
            "A task whose mail is recorded as sent ends as SUCCESS even if its worker died.",
            (
                Edit(
                    SENDING,
                    "MailTask.find_completed_result",
                    'return {"message_id": sent.message_id} if sent else None',
                    "return None",
                ),
            ),
            (f"{ACCEPTED}[sqlite-False-reconcile]", f"{ACCEPTED}[sqlite-True-a worker]"),
        ),
        Mutant(
            "mail-check-last",
            "The claim and the cancellation request are checked immediately before a mail is sent.",
            (Edit(SENDING, "_send", "_check_before_sending(task)", "pass"),),
            (
                f"{TEST_MAIL}::test_no_mail_is_sent_after_takeover",
                f"{TEST_MAIL}::test_no_mail_is_sent_after_cancellation",
            ),
        ),
        Mutant(
            "mail-id",
            "The Message-ID is derived from the task id, so that mail clients can detect duplicates.",
            (Edit(SENDING, "deliver", "message.msgId = message_id", "pass"),),
            (f"{TEST_MAIL}::test_duplicate_message_sends_one_mail",),
        ),
        Mutant(
            "archive-rename",
            "An archive is written to a temporary path and renamed when it is complete.",
            (Edit(STORAGE, "FolderStorage._part", "self._folder / PARTS / path", "self._folder / path"),),
            (f"{TEST_STORAGE}::test_file_is_invisible_until_complete[folder]",),
        ),
        Mutant(
            "archive-discard",
            "An incomplete archive is deleted after an error.",
            (Edit(STORAGE, "FolderStorage.new", "part.unlink(missing_ok=True)", "pass"),),
            (
                f"{TEST_STORAGE}::test_failed_write_leaves_no_file[folder]",
                f"{TEST_STORAGE}::test_error_after_write_leaves_no_file[folder]",
            ),
        ),
        Mutant(
            "archive-abort",
            "The parts of an incomplete archive in a bucket are deleted after an error.",
            (Edit(BUCKET, "BucketStorage.new", "self._client.abort_multipart_upload(**upload)", "pass"),),
            (
                f"{TEST_STORAGE}::test_failed_write_leaves_no_file[bucket]",
                f"{TEST_STORAGE}::test_error_after_write_leaves_no_file[bucket]",
            ),
        ),
        Mutant(
            "cleanup-uploads",
            "The parts that a killed worker has uploaded to a bucket are deleted.",
            (
                Edit(
                    BUCKET,
                    "BucketStorage.delete",
                    'self._client.abort_multipart_upload(**target, UploadId=upload["UploadId"])',
                    "pass",
                ),
            ),
            (f"{TEST_BUCKET}::test_sweep_aborts_uploads_of_failed_export",),
        ),
    ),
)
