"""Task rows: their creation and publication, and their terminal states."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Promise

JOBS = "microblog/jobs/services.py"
LAUNCH = "microblog/taskqueue/launch.py"
MODELS = "microblog/taskqueue/models.py"
RESULT_BACKEND = "microblog/taskqueue/result_backend.py"
TRANSITIONS = "microblog/taskqueue/transitions.py"
MIGRATION = "migrations/versions/0001_initial.py"

TEST_MASS_ACTIONS = "tests/integration/test_mass_actions.py"
TEST_CLAIM = "tests/integration/test_claim.py"
TEST_LAUNCH = "tests/integration/test_launch.py"
TEST_REPUBLISH = "tests/integration/test_republish.py"
TEST_UNSTORABLE = "tests/integration/test_unstorable_values.py"
TEST_TASKS_PAGES = "tests/integration/test_tasks_pages.py"

ROW_FIRST = Promise(
    "A row exists before its message; a rolled-back request leaves neither",
    (
        Mutant(
            "publish-after-commit",
            "The message is published after the commit.",
            (
                Edit(
                    LAUNCH,
                    "launch_jobs",
                    'session.info.setdefault("launched", []).append(rows)',
                    'Signature.from_dict(rows[0]["signature"]).apply_async()',
                ),
            ),
            (
                f"{TEST_LAUNCH}::test_nothing_is_published_before_commit",
                f"{TEST_LAUNCH}::test_rollback_leaves_neither_row_nor_message",
            ),
        ),
        Mutant(
            "rows-in-transaction",
            "The rows are inserted in the transaction of the request.",
            (
                Edit(
                    TRANSITIONS,
                    "insert_tasks",
                    "    refused = {",
                    "    session.commit()\n    refused = {",
                ),
            ),
            (f"{TEST_LAUNCH}::test_rollback_leaves_neither_row_nor_message",),
        ),
        Mutant(
            "rollback-discards",
            "A rollback discards the launch, and a task without a row is never published.",
            (
                Edit(LAUNCH, "_discard_launched", 'session.info.pop("launched", None)', "pass"),
                Edit(
                    LAUNCH,
                    "publish_jobs",
                    "marked = mark_published(executor, list(by_id), expected_published_at, retries)",
                    "marked = dict.fromkeys(by_id, datetime.min)",
                ),
            ),
            (f"{TEST_LAUNCH}::test_rollback_leaves_neither_row_nor_message",),
        ),
        Mutant(
            "savepoint",
            "A launch within a savepoint is published at the commit of the transaction.",
            (Edit(LAUNCH, "_confirm_launched", "if not session.in_nested_transaction():", "if True:"),),
            (f"{TEST_LAUNCH}::test_released_savepoint_publishes_nothing",),
        ),
    ),
)

TERMINAL = Promise(
    "A terminal row never changes. A retry creates a new job",
    (
        Mutant(
            "terminal-for-holder",
            "The holder of a claim can write only to an unfinished row.",
            (Edit(TRANSITIONS, "_BY_HOLDER", "UNFINISHED, ", ""),),
            (f"{TEST_CLAIM}::test_late_result_does_not_change_revoked_task",),
        ),
        Mutant(
            "terminal-for-others",
            "Other processes can write only to an unfinished row.",
            (Edit(TRANSITIONS, "_BY_OTHERS", "UNFINISHED, ", ""),),
            (f"{TEST_CLAIM}::test_terminal_row_never_changes",),
        ),
        Mutant(
            "terminal-for-redis",
            "A state that the row rejects is not stored in Redis either.",
            (
                Edit(
                    RESULT_BACKEND,
                    "DatabaseResultBackend._store_state",
                    "writer = writer._replace(task_ids=self._accepted_ids(writer, state))",
                    "pass",
                ),
            ),
            (f"{TEST_CLAIM}::test_claimed_task_is_not_ended_by_others",),
        ),
        Mutant(
            "terminal-in-redis",
            "A terminal state in Redis is replaced only by the result of a later attempt.",
            (Edit(RESULT_BACKEND, "_STORE", " or stored_is_final and not newer", ""),),
            (f"{TEST_CLAIM}::test_revoke_preserves_success_in_redis",),
        ),
        Mutant(
            "terminal-in-redis-among-others",
            "Of several results, Redis stores those that replace no terminal state.",
            (Edit(RESULT_BACKEND, "_STORE", "table.insert(too_late, i)", "return {i}"),),
            (f"{TEST_MASS_ACTIONS}::TestEndingSeveralTasks::test_result_that_only_redis_has_is_kept[sqlite]",),
        ),
        Mutant(
            "terminal-for-claim",
            "A finished task is not claimed.",
            (Edit(TRANSITIONS, "_CLAIM", "UNFINISHED,", ""),),
            (f"{TEST_CLAIM}::test_claim_refused_for_finished_task",),
        ),
        Mutant(
            "terminal-for-publish",
            "A finished task is not published.",
            (Edit(TRANSITIONS, "_PUBLISHED", ", UNFINISHED", ""),),
            (f"{TEST_REPUBLISH}::test_just_cancelled_job_is_not_published",),
        ),
        Mutant(
            "terminal-for-cancel",
            "A finished task is not cancelled.",
            (Edit(TRANSITIONS, "request_cancellation", ", UNFINISHED", ""),),
            (f"{TEST_TASKS_PAGES}::test_finished_job_cannot_be_cancelled",),
        ),
        Mutant(
            "retry-of-failed",
            "Only a failed or cancelled job can be retried.",
            (Edit(JOBS, "_rows_of_retry", "if not job.retryable:", "if False:"),),
            (f"{TEST_TASKS_PAGES}::test_retry_requires_failed_or_cancelled_job",),
        ),
        Mutant(
            "retry-origin",
            "A retry stores the id of the original job in `retried_from`.",
            (Edit(JOBS, "_rows_of_retry", ", retried_from=job.id", ""),),
            (f"{TEST_TASKS_PAGES}::test_retry_creates_new_job",),
        ),
    ),
)

ONE_UNFINISHED = Promise(
    "One unfinished job of each kind per user, enforced by a partial unique index",
    (
        Mutant(
            "unique-index",
            "The database rejects a second row.",
            (
                Edit(
                    MODELS,
                    "Task",
                    '_partial("uq_task_unfinished_per_user", "user_id", "name", where=_UNFINISHED, unique=True),',
                    "",
                ),
                Edit(
                    MIGRATION,
                    "upgrade",
                    '"uq_task_unfinished_per_user", "task", ["user_id", "name"], unique=True',
                    '"uq_task_unfinished_per_user", "task", ["user_id", "name"], unique=False',
                ),
            ),
            (
                f"{TEST_LAUNCH}::test_concurrent_launches_create_one_job",
                f"{TEST_LAUNCH}::test_launch_refused_while_same_job_unfinished",
            ),
        ),
        Mutant(
            "unique-launch",
            "A launch is refused if the database rejects one of its rows.",
            (Edit(LAUNCH, "launch", "if root is None:", "if False:"),),
            (
                f"{TEST_LAUNCH}::test_concurrent_launches_create_one_job",
                f"{TEST_LAUNCH}::test_launch_refused_while_same_job_unfinished",
            ),
        ),
        Mutant(
            "unique-all-or-nothing",
            "A refused launch leaves no row.",
            (
                Edit(
                    TRANSITIONS,
                    "insert_tasks",
                    "session.execute(sa.delete(Task).where(Task.root_id.in_(refused)))",
                    "pass",
                ),
            ),
            (f"{TEST_LAUNCH}::test_refused_launch_preserves_transaction_of_caller",),
        ),
    ),
)

# A part of the promise that every job ends.
ANY_VALUE = (
    Mutant(
        "any-text",
        "An error with a character that no database stores ends its task.",
        (
            Edit(
                MODELS,
                "CleanText.process_bind_param",
                "replace_unstorable(value[: self.limit])",
                "value[: self.limit]",
            ),
        ),
        (f"{TEST_UNSTORABLE}::test_characters_that_no_database_stores_are_replaced",),
    ),
    Mutant(
        "any-result",
        "A result that is no JSON, such as a time or NaN, ends its task.",
        (
            Edit(
                MODELS,
                "CleanJSON.process_bind_param",
                "json.loads(text, parse_constant=str)",
                "value",
            ),
        ),
        (f"{TEST_UNSTORABLE}::test_next_step_receives_value_that_redis_has_forgotten[sqlite-value1]",),
    ),
    Mutant(
        "no-endless-error",
        "A value that cannot be stored fails its task, instead of being tried again for ever.",
        (Edit(RESULT_BACKEND, "DatabaseResultBackend._store_in_row", "if not is_value_error(error):", "if True:"),),
        (f"{TEST_UNSTORABLE}::test_value_that_no_serializer_knows_fails_task",),
    ),
)
