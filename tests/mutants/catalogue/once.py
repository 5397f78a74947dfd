"""That nothing runs twice, and no mail is sent twice."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Promise

EXPORTS_MODELS = "microblog/exports/models.py"
SENDING = "microblog/mail/sending.py"
STORAGE = "microblog/storage.py"
RESULT_BACKEND = "microblog/taskqueue/result_backend.py"
TRANSITIONS = "microblog/taskqueue/transitions.py"
WORKER = "microblog/taskqueue/worker.py"

TEST_CLAIM = "tests/integration/test_claim.py"
TEST_EXPORTS = "tests/integration/test_exports.py"
TEST_EXPORT_MAIL = "tests/integration/test_export_mail.py"
TEST_MAIL = "tests/integration/test_mail.py"
TEST_RECONCILE = "tests/integration/test_reconcile.py"
TEST_REPUBLISH = "tests/integration/test_republish.py"
TEST_STORAGE = "tests/unit/test_storage.py"

TAKEN_OVER = "test_store_result_is_fenced_after_takeover"
ACCEPTED = f"{TEST_EXPORT_MAIL}::test_accepted_mail_is_not_resent_or_revoked"
TWO_AT_ONCE = f"{TEST_REPUBLISH}::test_concurrent_reconcile_publishes_once"

ONE_MAIL = Promise(
    "One archive mail per export, whatever is killed, redelivered, clicked twice or published twice",
    (
        Mutant(
            "claim-unheld",
            "What a live lease covers is claimed by nobody else.",
            (Edit(TRANSITIONS, "_CLAIM", "UNHELD,", ""),),
            (
                f"{TEST_CLAIM}::test_concurrent_claims_have_one_winner",
                f"{TEST_CLAIM}::test_claim_refused_while_lease_valid",
            ),
        ),
        Mutant(
            "fence",
            "What an earlier attempt writes does not count.",
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
            "Nor does it in Redis.",
            (Edit(RESULT_BACKEND, "_STORE", "older or ", ""),),
            (f"{TEST_CLAIM}::test_frozen_worker_does_not_overwrite_progress",),
        ),
        Mutant(
            "fence-archive",
            "Nor does its archive take the place of a later attempt's.",
            (Edit(EXPORTS_MODELS, "record", ", where=Archive.attempt <= insert.excluded.attempt", ""),),
            (f"{TEST_EXPORTS}::test_stale_attempt_does_not_replace_archive",),
        ),
        Mutant(
            "fence-progress",
            "An earlier attempt is told so at its next progress.",
            (Edit(TRANSITIONS, "store_progress", 'raise ClaimLost(f"{claim.task_id} was taken over")', "return"),),
            (f"{TEST_CLAIM}::test_progress_raises_claim_lost_after_takeover",),
        ),
        Mutant(
            "not-held-by-others",
            "Nobody ends what another worker holds.",
            (Edit(TRANSITIONS, "_BY_OTHERS", "sa.or_(UNHELD, ", "sa.or_(_ID, "),),
            (f"{TEST_CLAIM}::test_claimed_task_is_not_ended_by_others",),
        ),
        Mutant(
            "publish-once",
            "Of several who publish a row for the first time one does.",
            (Edit(TRANSITIONS, "_PUBLISHED_FIRST", ".where(task_table.c.published_at.is_(None))", ""),),
            (f"{TWO_AT_ONCE}[sqlite-False]", f"{TWO_AT_ONCE}[postgresql-False]"),
        ),
        Mutant(
            "publish-again-once",
            "So of several who publish it again.",
            (
                Edit(
                    TRANSITIONS,
                    "_PUBLISHED_AGAIN",
                    'task_table.c.published_at == sa.bindparam("expected")',
                    'task_table.c.published_at >= sa.bindparam("expected")',
                ),
            ),
            (f"{TWO_AT_ONCE}[sqlite-True]", f"{TWO_AT_ONCE}[postgresql-True]"),
        ),
        Mutant(
            "look-back",
            "A new attempt asks first what the one before it achieved.",
            (
                Edit(
                    WORKER,
                    "JobTask._claim",
                    "if claim is not None and claim.attempt > 1 and self._recovered(task_id):",
                    "if False:",
                ),
            ),
            (f"{TEST_RECONCILE}::test_stored_result_is_reused_after_crash[sqlite]",),
        ),
        Mutant(
            "success-before-next",
            "The step behind a task is published when its success is stored, not before.",
            (
                Edit(
                    WORKER,
                    "JobTask.__call__",
                    "run.next_steps, self.request.chain = self.request.chain or [], None",
                    "pass",
                ),
            ),
            (f"{TEST_RECONCILE}::test_next_step_waits_for_committed_success",),
        ),
        Mutant(
            "mail-check-claim",
            "A run that was taken over, or has ended, is not current.",
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
            "mail-not-again",
            "A mail that is noted as sent is not sent.",
            (Edit(SENDING, "deliver", "if task.find_completed_result(task_id) is None:", "if True:"),),
            (f"{TEST_MAIL}::test_duplicate_message_sends_one_mail",),
        ),
        Mutant(
            "mail-noted",
            "What the server has accepted is noted.",
            (Edit(SENDING, "deliver", "_record(task_id, message_id)", "pass"),),
            (f"{TEST_MAIL}::test_duplicate_message_sends_one_mail",),
        ),
        Mutant(
            "mail-noted-later",
            "It is noted however long the database is away.",
            (Edit(SENDING, "_record", "except DatabaseUnavailable:", "except ZeroDivisionError:"),),
            (f"{TEST_MAIL}::test_sent_mail_is_recorded_after_database_outage",),
        ),
        Mutant(
            "mail-done",
            "A task whose mail is noted is a success, whatever became of its worker.",
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
            "mail-last-look",
            "The last thing before a mail goes is to ask whether it is still wanted, and still ours to send.",
            (Edit(SENDING, "_send", "_check_wanted(task)", "pass"),),
            (
                f"{TEST_MAIL}::test_no_mail_is_sent_after_takeover",
                f"{TEST_MAIL}::test_no_mail_is_sent_after_cancellation",
            ),
        ),
        Mutant(
            "mail-id",
            "Its Message-ID derives from the task's id, so that two would be one to their reader.",
            (Edit(SENDING, "deliver", "message.msgId = message_id", "pass"),),
            (f"{TEST_MAIL}::test_duplicate_message_sends_one_mail",),
        ),
        Mutant(
            "archive-whole",
            "An archive is written elsewhere, and moved into place when it is whole.",
            (Edit(STORAGE, "Storage.new", 'self._full(f"{PARTS}/{path}")', "self._full(path)"),),
            (f"{TEST_STORAGE}::test_file_is_invisible_until_complete",),
        ),
        Mutant(
            "archive-or-nothing",
            "If it does not become whole, nothing is left of it.",
            (Edit(STORAGE, "Storage.new", "self._files.rm_file(part)", "pass"),),
            (
                f"{TEST_STORAGE}::test_failed_write_leaves_no_file",
                f"{TEST_STORAGE}::test_error_after_write_leaves_no_file",
            ),
        ),
    ),
)
