"""Outages of the database, a part of the promise about outages."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant

CONNECTIONS = "microblog/connections.py"
DATABASE = "microblog/database.py"
ERRORS = "microblog/errors.py"
IDLE_CONNECTIONS = "microblog/taskqueue/idle_connections.py"
STATUS = "microblog/monitoring/status.py"
RESULT_BACKEND = "microblog/taskqueue/result_backend.py"
WORKER = "microblog/taskqueue/worker.py"

TEST_OUTAGES = "tests/integration/test_outages.py"
TEST_CONNECTIONS = "tests/integration/test_database_connections.py"
TEST_LIMITS = "tests/integration/test_database_limits.py"
TEST_REFUSALS = "tests/integration/test_database_refusals.py"
TEST_ERRORS = "tests/integration/test_errors.py"

DATABASE_UNAVAILABLE = f"{TEST_ERRORS}::test_unavailable_database_is_503_with_retry_after"

UNAVAILABLE = (
    Mutant(
        "database-503",
        "A page returns 503 while the database is unavailable.",
        (Edit(ERRORS, "init_app", "app.register_error_handler(DatabaseUnavailable, _database_unavailable)", "pass"),),
        (f"{DATABASE_UNAVAILABLE}[fault0-sqlite]",),
    ),
    Mutant(
        "database-503-interface",
        "Both error classes that the driver uses for a lost connection result in 503.",
        (
            Edit(
                DATABASE,
                "_raise_unavailable",
                "(context.is_disconnect or _is_unavailable(error))",
                "_is_unavailable(error)",
            ),
        ),
        (f"{DATABASE_UNAVAILABLE}[fault1-sqlite]",),
    ),
    Mutant(
        "database-full",
        "A full disk counts as an unavailable database.",
        (Edit(DATABASE, "_SQLITE_UNAVAILABLE", "sqlite3.SQLITE_FULL,", ""),),
        (f"{TEST_ERRORS}::test_full_disk_counts_as_unavailable",),
    ),
    Mutant(
        "database-locked",
        "A locked SQLite database stops no other request.",
        (Edit(CONNECTIONS, "SqliteConnection.__init__", "timeout=0,", "timeout=timeout,"),),
        (f"{TEST_REFUSALS}::test_locked_database_does_not_stop_web_process",),
    ),
    Mutant(
        "database-write",
        "A database that refuses to write is reported.",
        (Edit(STATUS, "_use_database", "AutocommitExecutor(db.engine).check_writable()", "pass"),),
        (f"{TEST_REFUSALS}::test_refused_writes_are_reported",),
    ),
    Mutant(
        "database-former-primary",
        "Connections to a server that has become read-only are replaced.",
        (Edit(DATABASE, "_raise_unavailable", '"sqlstate", None) == _READ_ONLY', '"sqlstate", None) == ""'),),
        (f"{TEST_REFUSALS}::test_connections_to_a_former_primary_are_replaced",),
    ),
    Mutant(
        "database-restarted-page",
        "Pages work after a restart of the database.",
        (Edit(CONNECTIONS, "_discard_closed", "for _ in range(2):", "for _ in ():"),),
        (f"{TEST_ERRORS}::test_pages_work_after_database_restart",),
    ),
    Mutant(
        "database-lost-rollback",
        "A page is sent although its connection is lost afterwards.",
        (Edit(CONNECTIONS, "PostgresConnection.rollback", "self.close()", "raise"),),
        (f"{TEST_ERRORS}::test_page_is_sent_although_its_connection_is_lost_afterwards",),
    ),
    Mutant(
        "database-restarted-launch",
        "A statement of the engine is repeated if its connection was lost.",
        (Edit(DATABASE, "AutocommitExecutor.execute", "if not error.connection_invalidated:", "if True:"),),
        (f"{TEST_LIMITS}::test_statement_continues_on_another_connection",),
    ),
    Mutant(
        "database-moved",
        "A connection without a response is closed, and with it those that were opened before.",
        (Edit(CONNECTIONS, "PostgresConnection.wait", "self.close()", "pass"),),
        (f"{TEST_LIMITS}::test_other_connections_of_the_lost_host_are_not_used",),
    ),
    Mutant(
        "database-silent",
        "A statement without a response ends.",
        (Edit(CONNECTIONS, "PostgresConnection.wait", "if timeout is None:", "if False:"),),
        (f"{TEST_LIMITS}::test_web_and_worker_go_on_after_database_has_moved",),
    ),
    Mutant(
        "database-batch",
        "A batch of statements has the time limit of one statement.",
        (Edit(CONNECTIONS, "PostgresConnection.wait", "if self.deadline is None else", "if True else"),),
        (f"{TEST_LIMITS}::test_batch_has_the_time_limit_of_one_statement",),
    ),
    Mutant(
        "database-soft-time-limit",
        "A soft time limit that is reached during a statement ends the task, and not only the statement.",
        (
            Edit(
                DATABASE,
                "_raise_unavailable",
                "isinstance(context.original_exception, SoftTimeLimitExceeded)",
                "False",
            ),
        ),
        (f"{TEST_LIMITS}::test_soft_time_limit_ends_statement",),
    ),
    Mutant(
        "database-fork",
        "A forked process neither uses nor closes the connections of its parent.",
        (Edit(CONNECTIONS, "PostgresConnection.closed", "self.process != os.getpid() or", ""),),
        (f"{TEST_LIMITS}::test_forked_process_leaves_connections_to_its_parent",),
    ),
    Mutant(
        "database-pool-full",
        "A pool without a free connection counts as an unavailable database.",
        (Edit(CONNECTIONS, "ConnectionPool.connect", "except PoolTimeoutError", "except ZeroDivisionError"),),
        (f"{TEST_LIMITS}::test_full_pool_is_503_with_retry_after_and_no_report",),
    ),
    Mutant(
        "database-idle-process",
        "A process of a worker keeps no connection between tasks.",
        (Edit(IDLE_CONNECTIONS, "_close_idle", "engine.dispose()", "pass"),),
        (f"{TEST_CONNECTIONS}::test_processes_keep_no_connection_between_tasks",),
    ),
    Mutant(
        "database-claim",
        "A message is requeued if the database is unavailable at its claim.",
        (Edit(WORKER, "JobTask.before_start", "raise Reject(error, requeue=True) from error", "raise"),),
        (f"{TEST_OUTAGES}::test_message_is_requeued_while_database_is_unavailable",),
    ),
    Mutant(
        "database-claim-refused",
        "A message whose claim fails with a schema error is dropped without storing a state.",
        (Edit(WORKER, "JobTask.before_start", "raise NotClaimed(task_id) from", "raise Reject(task_id) from"),),
        (f"{TEST_OUTAGES}::test_schema_error_at_claim_drops_message_and_loses_no_job",),
    ),
    Mutant(
        "database-progress-refused",
        "A database error at a progress update does not fail the task.",
        (
            Edit(
                RESULT_BACKEND,
                "DatabaseResultBackend._store_progress",
                'with LogDatabaseErrors(logger, "progress of %s is not in its row", claim.task_id):',
                "if True:",
            ),
        ),
        (f"{TEST_OUTAGES}::test_schema_error_at_progress_does_not_fail_task",),
    ),
    Mutant(
        "database-outcome",
        "A result that cannot be stored in the row stays in Redis, and reconcile copies it.",
        (
            Edit(
                RESULT_BACKEND,
                "DatabaseResultBackend._store_in_row",
                'LogDatabaseErrors(logger, "%s of %s is stored only in part; reconcile does the rest", state, names)',
                "contextlib.nullcontext()",
            ),
        ),
        (f"{TEST_OUTAGES}::test_result_reaches_row_once_database_is_back",),
    ),
)
