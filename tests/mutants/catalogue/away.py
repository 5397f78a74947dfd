"""That what is away for a while costs nothing but the while."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Promise

CONFIG = "config.py"
DATABASE = "microblog/database.py"
ERRORS = "microblog/errors.py"
EXTENSIONS = "microblog/extensions.py"
JOBS = "microblog/jobs/services.py"
SENDING = "microblog/mail/sending.py"
SETTINGS = "microblog/taskqueue/celery_settings.py"
LAUNCH = "microblog/taskqueue/launch.py"
RESULT_BACKEND = "microblog/taskqueue/result_backend.py"
SCHEDULER = "microblog/taskqueue/scheduler.py"
TRANSITIONS = "microblog/taskqueue/transitions.py"
TRANSPORT = "microblog/taskqueue/transport.py"
WORKER = "microblog/taskqueue/worker.py"

TEST_AWAY = "tests/integration/test_away.py"
TEST_CLAIM = "tests/integration/test_claim.py"
TEST_BEAT = "tests/integration/test_beat.py"
TEST_ERRORS = "tests/integration/test_errors.py"
TEST_EXPORT_MAIL = "tests/integration/test_export_mail.py"
TEST_LAUNCH = "tests/integration/test_launch.py"
TEST_MAIL = "tests/integration/test_mail.py"
TEST_TASKS_PAGES = "tests/integration/test_tasks_pages.py"

DATABASE_AWAY = f"{TEST_ERRORS}::test_unavailable_database_is_503_with_retry_after"
FOLLOWS_LATER = f"{TEST_AWAY}::test_next_step_runs_once_redis_is_back[sqlite]"
PAUSES = f"{TEST_MAIL}::test_retry_pauses_grow_with_jitter"
RETRIED_LATER = f"{TEST_AWAY}::test_retry_is_published_once_redis_is_back[sqlite]"
TEMPORARY = f"{TEST_EXPORT_MAIL}::test_temporary_refusal_is_retried_until_accepted"
UNPUBLISHED = "test_launch_while_redis_is_down_runs_later"

SOMETHING_IS_AWAY = Promise(
    "Redis away: every page that does not need it works; launches wait and run once it is back. "
    "SMTP away: the mail is retried with growing, jittered pauses. Database away: 503, never a half-written job",
    (
        Mutant(
            "redis-pages",
            "Redis away: rate limits are counted in the process, and every page works.",
            (Edit(EXTENSIONS, "limiter", ", in_memory_fallback_enabled=True", ""),),
            (f"{TEST_ERRORS}::test_pages_work_while_redis_is_unavailable",),
        ),
        Mutant(
            "redis-launch",
            "A launch that finds the broker away is no error.",
            (
                Edit(
                    LAUNCH,
                    "publish",
                    "mark_unpublished(executor, task_id, now)\n        return False",
                    "mark_unpublished(executor, task_id, now)\n        raise",
                ),
            ),
            (f"{TEST_TASKS_PAGES}::test_export_while_redis_is_down",),
        ),
        Mutant(
            "redis-give-back",
            "Its row stays unpublished, for reconcile to see.",
            (Edit(LAUNCH, "publish", "mark_unpublished(executor, task_id, now)", "pass"),),
            (f"{TEST_LAUNCH}::{UNPUBLISHED}",),
        ),
        Mutant(
            "redis-cancel",
            "A cancellation is kept until it can be carried out.",
            (Edit(JOBS, "cancel_job", "except BackendStoreError:", "except ZeroDivisionError:"),),
            (f"{TEST_TASKS_PAGES}::test_cancel_while_redis_is_down",),
        ),
        Mutant(
            "redis-outcome",
            "A result waits in the worker until Redis takes it.",
            (
                Edit(
                    SETTINGS, "_results", '"result_backend_always_retry": True', '"result_backend_always_retry": False'
                ),
            ),
            (FOLLOWS_LATER,),
        ),
        Mutant(
            "redis-retry",
            "A task that asks for another attempt gets it once Redis is back.",
            (
                Edit(
                    WORKER,
                    "JobTask.retry",
                    'raise Retry(exc=options.get("exc"), when=eta or countdown) from unpublished',
                    "raise",
                ),
            ),
            (RETRIED_LATER,),
        ),
        Mutant(
            "redis-retry-state",
            "The row says so, though Redis cannot.",
            (
                Edit(
                    RESULT_BACKEND, "DatabaseResultBackend._store_in_redis", "if state in states.FINISHED:", "if True:"
                ),
            ),
            (RETRIED_LATER,),
        ),
        Mutant(
            "redis-worker",
            "A worker that still has messages of a lost connection outlives it.",
            (
                Edit(
                    TRANSPORT,
                    "Channel.conn_or_acquire",
                    'raise BrokerGone("the connection to Redis was closed")',
                    "pass",
                ),
            ),
            (FOLLOWS_LATER,),
        ),
        Mutant(
            "redis-beat",
            "Beat outlives it, too.",
            (
                Edit(
                    SCHEDULER,
                    "Scheduler._tick",
                    "except (LockError, RedisError) as error:",
                    "except KeyError as error:",
                ),
            ),
            (f"{TEST_BEAT}::test_beat_survives_restart_of_empty_redis",),
        ),
        Mutant(
            "redis-schedule",
            "It stores its schedule again, which Redis may have forgotten.",
            (Edit(SCHEDULER, "Scheduler._tick", "self.setup_schedule()", "pass"),),
            (f"{TEST_BEAT}::test_beat_survives_restart_of_empty_redis",),
        ),
        Mutant(
            "smtp-permanent",
            "SMTP: a refusal for good fails at once, with the server's words.",
            (Edit(SENDING, "_refused", "if code >= 500:", "if False:"),),
            (f"{TEST_EXPORT_MAIL}::test_permanent_refusal_fails_with_server_reply[sqlite]",),
        ),
        Mutant(
            "smtp-temporary",
            "A refusal for now is tried again.",
            (Edit(SENDING, "_refused", "_try_later(task, answer)", "raise JobError(answer)"),),
            (f"{TEMPORARY}[sqlite-451 4.3.0 later]",),
        ),
        Mutant(
            "smtp-gone",
            "So is a connection that was lost.",
            (
                Edit(
                    SENDING,
                    "_send",
                    '_try_later(task, _("The mail server cannot be reached."), error)',
                    "raise JobError(str(error)) from error",
                ),
            ),
            (f"{TEMPORARY}[sqlite-drop]",),
        ),
        Mutant(
            "smtp-pauses-grow",
            "The pauses grow.",
            (Edit(SENDING, "_try_later", "INITIAL_BACKOFF * 2 ** min(attempt - 1, 10)", "INITIAL_BACKOFF"),),
            (PAUSES,),
        ),
        Mutant(
            "smtp-pauses-jitter",
            "They are never quite the same.",
            (Edit(SENDING, "_try_later", " * random.uniform(0.75, 1.25)", ""),),
            (PAUSES,),
        ),
        Mutant(
            "smtp-window",
            "They end with MAIL_RETRY_WINDOW.",
            (
                Edit(
                    SENDING, "_try_later", "if utcnow() + timedelta(seconds=pause) > started_at + window:", "if False:"
                ),
            ),
            (f"{TEST_MAIL}::test_delivery_fails_after_retry_window",),
        ),
        Mutant(
            "database-503",
            "Database away: a page says so, with 503.",
            (
                Edit(
                    ERRORS, "init_app", "app.register_error_handler(DatabaseUnavailable, _database_unavailable)", "pass"
                ),
            ),
            (f"{DATABASE_AWAY}[fault0-sqlite]",),
        ),
        Mutant(
            "database-503-interface",
            "It says so whichever of its two words the driver has for it.",
            (
                Edit(
                    DATABASE,
                    "_raise_unavailable",
                    "(context.is_disconnect or _is_unavailable(error))",
                    "_is_unavailable(error)",
                ),
            ),
            (f"{DATABASE_AWAY}[fault1-sqlite]",),
        ),
        Mutant(
            "database-full",
            "A full disk is an unavailable database, too.",
            (Edit(DATABASE, "_SQLITE_UNAVAILABLE", "sqlite3.SQLITE_FULL,", ""),),
            (f"{TEST_ERRORS}::test_full_disk_counts_as_unavailable",),
        ),
        Mutant(
            "database-restarted-page",
            "A database that was restarted costs nobody a page.",
            (Edit(CONFIG, "_stores", '"pool_pre_ping": True', '"pool_pre_ping": False'),),
            (f"{TEST_ERRORS}::test_pages_work_after_database_restart",),
        ),
        Mutant(
            "database-restarted-launch",
            "It costs no launch.",
            (Edit(DATABASE, "AutocommitExecutor.execute", "if not error.connection_invalidated:", "if True:"),),
            (f"{TEST_LAUNCH}::test_launch_survives_database_restart",),
        ),
        Mutant(
            "database-claim",
            "A message that cannot be claimed goes back to its queue.",
            (Edit(WORKER, "JobTask.before_start", "raise Reject(error, requeue=True) from error", "raise"),),
            (f"{TEST_AWAY}::test_message_is_requeued_while_database_is_unavailable",),
        ),
        Mutant(
            "database-claim-refused",
            "A message whose claim the schema refuses is dropped, and nothing is stored.",
            (Edit(WORKER, "JobTask.before_start", "raise NotClaimed(task_id) from", "raise Reject(task_id) from"),),
            (f"{TEST_AWAY}::test_schema_error_at_claim_drops_message_and_loses_no_job",),
        ),
        Mutant(
            "database-progress-refused",
            "Progress that the database refuses does not fail the task.",
            (
                Edit(
                    RESULT_BACKEND,
                    "DatabaseResultBackend._store_progress",
                    "except SQLAlchemyError:",
                    "except ZeroDivisionError:",
                ),
            ),
            (f"{TEST_AWAY}::test_schema_error_at_progress_does_not_fail_task",),
        ),
        Mutant(
            "redis-retry-unpublished",
            "The row of a retry that was not published says so.",
            (
                Edit(
                    TRANSITIONS,
                    "store_failure",
                    'values["published_at"] = NOW if run.retry_published else None',
                    'values["published_at"] = NOW',
                ),
            ),
            (f"{TEST_CLAIM}::test_retry_stores_whether_it_was_published[sqlite-False]",),
        ),
        Mutant(
            "database-outcome",
            "A result that cannot reach its row is kept in Redis, for reconcile to copy.",
            (
                Edit(
                    RESULT_BACKEND,
                    "DatabaseResultBackend._store_outcome",
                    "except (SQLAlchemyError, BackendStoreError):",
                    "except BackendStoreError:",
                ),
            ),
            (f"{TEST_AWAY}::test_result_reaches_row_once_database_is_back",),
        ),
    ),
)
