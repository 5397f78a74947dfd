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

TAKEN_OVER = "test_what_a_worker_writes_after_its_task_was_taken_over_reaches_neither_row_nor_redis"
ACCEPTED = f"{TEST_EXPORT_MAIL}::test_a_mail_that_was_accepted_is_neither_sent_again_nor_called_cancelled"
TWO_AT_ONCE = f"{TEST_REPUBLISH}::test_two_at_once_publish_a_row_once"

ONE_MAIL = Promise(
    "One archive mail per export, whatever is killed, redelivered, clicked twice or published twice",
    (
        Mutant(
            "claim-unheld",
            "What a live lease covers is claimed by nobody else.",
            (Edit(TRANSITIONS, "_CLAIM", "UNHELD,", ""),),
            (
                f"{TEST_CLAIM}::test_only_one_of_many_wins_a_claim",
                f"{TEST_CLAIM}::test_a_live_lease_keeps_others_out_and_a_dead_one_does_not",
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
            (f"{TEST_CLAIM}::test_what_a_frozen_worker_tells_redis_too_late_does_not_replace_what_the_second_said",),
        ),
        Mutant(
            "fence-archive",
            "Nor does its archive take the place of a later attempt's.",
            (Edit(EXPORTS_MODELS, "record", ", where=Archive.attempt <= insert.excluded.attempt", ""),),
            (f"{TEST_EXPORTS}::test_an_attempt_that_lost_its_job_takes_nothing_from_the_archive_of_the_one_that_won",),
        ),
        Mutant(
            "fence-progress",
            "An earlier attempt is told so at its next progress.",
            (Edit(TRANSITIONS, "store_progress", 'raise ClaimLost(f"{claim.task_id} was taken over")', "return"),),
            (f"{TEST_CLAIM}::test_a_worker_learns_at_its_next_progress_that_its_task_was_taken_over",),
        ),
        Mutant(
            "not-held-by-others",
            "Nobody ends what another worker holds.",
            (Edit(TRANSITIONS, "_BY_OTHERS", "sa.or_(UNHELD, ", "sa.or_(_ID, "),),
            (f"{TEST_CLAIM}::test_nobody_ends_a_task_that_another_worker_holds",),
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
            (f"{TEST_RECONCILE}::test_what_an_earlier_attempt_achieved_is_not_done_again[sqlite]",),
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
            (f"{TEST_RECONCILE}::test_a_step_begins_only_when_the_one_before_is_known_to_have_succeeded",),
        ),
        Mutant(
            "mail-not-again",
            "A mail that is noted as sent is not sent.",
            (Edit(SENDING, "deliver", "if task.find_completed_result(task_id) is None:", "if True:"),),
            (f"{TEST_MAIL}::test_a_mail_whose_message_comes_twice_is_sent_once",),
        ),
        Mutant(
            "mail-noted",
            "What the server has accepted is noted.",
            (Edit(SENDING, "deliver", "_record(task_id, message_id)", "pass"),),
            (f"{TEST_MAIL}::test_a_mail_whose_message_comes_twice_is_sent_once",),
        ),
        Mutant(
            "mail-noted-later",
            "It is noted however long the database is away.",
            (Edit(SENDING, "_record", "except DatabaseUnavailable:", "except ZeroDivisionError:"),),
            (f"{TEST_MAIL}::test_a_mail_that_finds_the_database_away_is_noted_when_it_is_back",),
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
                f"{TEST_MAIL}::test_a_worker_whose_task_was_taken_over_sends_no_mail",
                f"{TEST_MAIL}::test_what_was_cancelled_before_the_server_had_it_is_not_mailed",
            ),
        ),
        Mutant(
            "mail-id",
            "Its Message-ID derives from the task's id, so that two would be one to their reader.",
            (Edit(SENDING, "deliver", "message.msgId = message_id", "pass"),),
            (f"{TEST_MAIL}::test_a_mail_whose_message_comes_twice_is_sent_once",),
        ),
        Mutant(
            "archive-whole",
            "An archive is written elsewhere, and moved into place when it is whole.",
            (Edit(STORAGE, "Storage.new", 'self._full(f"{PARTS}/{path}")', "self._full(path)"),),
            (f"{TEST_STORAGE}::test_a_file_is_not_seen_before_it_is_whole",),
        ),
        Mutant(
            "archive-or-nothing",
            "If it does not become whole, nothing is left of it.",
            (Edit(STORAGE, "Storage.new", "self._files.rm_file(part)", "pass"),),
            (
                f"{TEST_STORAGE}::test_a_write_that_fails_leaves_nothing",
                f"{TEST_STORAGE}::test_a_whole_file_whose_writer_changes_its_mind_leaves_nothing",
            ),
        ),
    ),
)
