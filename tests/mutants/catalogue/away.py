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
TRANSPORT = "microblog/taskqueue/transport.py"
WORKER = "microblog/taskqueue/worker.py"

TEST_AWAY = "tests/integration/test_away.py"
TEST_BEAT = "tests/integration/test_beat.py"
TEST_ERRORS = "tests/integration/test_errors.py"
TEST_EXPORT_MAIL = "tests/integration/test_export_mail.py"
TEST_LAUNCH = "tests/integration/test_launch.py"
TEST_MAIL = "tests/integration/test_mail.py"
TEST_TASKS_PAGES = "tests/integration/test_tasks_pages.py"

DATABASE_AWAY = f"{TEST_ERRORS}::test_a_database_that_is_away_is_a_503_that_says_when_to_come_back"
FOLLOWS_LATER = f"{TEST_AWAY}::test_a_step_whose_turn_comes_while_redis_is_away_follows_later[sqlite]"
PAUSES = f"{TEST_MAIL}::test_pauses_between_two_attempts_grow_and_are_never_quite_the_same"
RETRIED_LATER = f"{TEST_AWAY}::test_a_retry_that_finds_redis_away_is_published_later[sqlite]"
TEMPORARY = f"{TEST_EXPORT_MAIL}::test_a_temporary_refusal_is_retried_until_the_mail_is_accepted_once"
UNPUBLISHED = "test_a_broker_that_is_away_leaves_the_row_unpublished_and_the_job_runs_when_it_is_back"

SOMETHING_IS_AWAY = Promise(
    "Redis away: every page that does not need it works; launches wait and run once it is back. "
    "SMTP away: the mail is retried with growing, jittered pauses. Database away: 503, never a half-written job",
    (
        Mutant(
            "redis-pages",
            "Redis away: rate limits are counted in the process, and every page works.",
            (Edit(EXTENSIONS, "limiter", ", in_memory_fallback_enabled=True", ""),),
            (f"{TEST_ERRORS}::test_while_redis_is_away_every_page_that_does_not_need_it_works",),
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
            (f"{TEST_TASKS_PAGES}::test_redis_away_an_export_is_accepted",),
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
            (f"{TEST_TASKS_PAGES}::test_redis_away_the_page_answers_and_the_cancellation_is_kept",),
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
            (f"{TEST_BEAT}::test_beat_outlives_a_redis_that_dies_and_comes_back_empty",),
        ),
        Mutant(
            "redis-schedule",
            "It stores its schedule again, which Redis may have forgotten.",
            (Edit(SCHEDULER, "Scheduler._tick", "self.setup_schedule()", "pass"),),
            (f"{TEST_BEAT}::test_beat_outlives_a_redis_that_dies_and_comes_back_empty",),
        ),
        Mutant(
            "smtp-permanent",
            "SMTP: a refusal for good fails at once, with the server's words.",
            (Edit(SENDING, "_refused", "if code >= 500:", "if False:"),),
            (f"{TEST_EXPORT_MAIL}::test_a_permanent_refusal_fails_at_once_with_the_servers_words[sqlite]",),
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
            (Edit(SENDING, "_try_later", "FIRST_PAUSE * 2 ** min(attempt - 1, 10)", "FIRST_PAUSE"),),
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
            (f"{TEST_MAIL}::test_a_mail_is_given_up_when_its_window_is_over",),
        ),
        Mutant(
            "database-503",
            "Database away: a page says so, with 503.",
            (
                Edit(
                    ERRORS, "init_app", "app.register_error_handler(DatabaseUnavailable, _database_unavailable)", "pass"
                ),
            ),
            (f"{DATABASE_AWAY}[sqlite-fault0]",),
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
            (f"{DATABASE_AWAY}[sqlite-fault1]",),
        ),
        Mutant(
            "database-restarted-page",
            "A database that was restarted costs nobody a page.",
            (Edit(CONFIG, "_stores", '"pool_pre_ping": True', '"pool_pre_ping": False'),),
            (f"{TEST_ERRORS}::test_a_database_that_was_restarted_costs_nobody_a_page",),
        ),
        Mutant(
            "database-restarted-launch",
            "It costs no launch.",
            (Edit(DATABASE, "AutocommitExecutor.execute", "if not error.connection_invalidated:", "if True:"),),
            (f"{TEST_LAUNCH}::test_a_database_that_was_restarted_costs_no_launch",),
        ),
        Mutant(
            "database-claim",
            "A message that cannot be claimed goes back to its queue.",
            (Edit(WORKER, "JobTask.before_start", "raise Reject(error, requeue=True) from error", "raise"),),
            (f"{TEST_AWAY}::test_a_message_that_finds_the_database_away_goes_back_to_its_queue",),
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
            (f"{TEST_AWAY}::test_a_result_that_finds_the_database_away_is_in_its_row_later",),
        ),
    ),
)
