"""Outages of Redis, the mail server and the database."""

from __future__ import annotations

from tests.mutants.catalogue import databases
from tests.mutants.mutant import Edit, Mutant, Promise

EXTENSIONS = "microblog/extensions.py"
JOBS = "microblog/jobs/services.py"
SENDING = "microblog/mail/sending.py"
SMTP = "microblog/smtp.py"
SETTINGS = "microblog/taskqueue/celery_settings.py"
LAUNCH = "microblog/taskqueue/launch.py"
RECONCILE = "microblog/taskqueue/reconcile.py"
RESULT_BACKEND = "microblog/taskqueue/result_backend.py"
SCHEDULER = "microblog/taskqueue/scheduler.py"
TRANSITIONS = "microblog/taskqueue/transitions.py"
TRANSPORT = "microblog/taskqueue/transport.py"
WORKER = "microblog/taskqueue/worker.py"

TEST_MASS_ACTIONS = "tests/integration/test_mass_actions.py"
TEST_OUTAGES = "tests/integration/test_outages.py"
TEST_CLAIM = "tests/integration/test_claim.py"
TEST_BEAT = "tests/integration/test_beat.py"
TEST_ERRORS = "tests/integration/test_errors.py"
TEST_EXPORT_MAIL = "tests/integration/test_export_mail.py"
TEST_LAUNCH = "tests/integration/test_launch.py"
TEST_MAIL = "tests/integration/test_mail.py"
TEST_REFUSALS = "tests/integration/test_redis_refusals.py"
TEST_SENTINEL = "tests/integration/test_redis_sentinel.py"
TEST_RETRY = "tests/integration/test_retry.py"
TEST_TASKS_PAGES = "tests/integration/test_tasks_pages.py"

FAILURE = f"{TEST_MAIL}::test_phase_and_reply_decide"
NEXT_STEP = f"{TEST_OUTAGES}::test_next_step_runs_once_redis_is_back"
PAUSES = f"{TEST_MAIL}::test_retry_pauses_grow_with_jitter"
REFUSAL = f"{TEST_REFUSALS}::test_refusal_delays_jobs_and_ends_no_process[READONLY-sqlite]"
TEMPORARY = f"{TEST_EXPORT_MAIL}::test_temporary_refusal_is_retried_until_accepted"
UNPUBLISHED = "test_launch_while_redis_is_down_runs_later"

OUTAGES = Promise(
    "Redis unavailable: every page that does not need it works; launches wait and run once it is available. "
    "SMTP unavailable: mail is retried with growing, jittered pauses. "
    "Database unavailable: 503, and no job is stored in part",
    (
        Mutant(
            "redis-pages",
            "Without Redis, rate limits are counted in memory and pages work.",
            (Edit(EXTENSIONS, "limiter", ", in_memory_fallback_enabled=True", ""),),
            (f"{TEST_ERRORS}::test_pages_work_while_redis_is_unavailable_or_refuses",),
        ),
        Mutant(
            "redis-launch",
            "A launch succeeds without the broker.",
            (
                Edit(
                    LAUNCH,
                    "publish_jobs",
                    "except BROKER_UNAVAILABLE as error:",
                    "except ZeroDivisionError as error:",
                ),
            ),
            (f"{TEST_TASKS_PAGES}::test_export_while_redis_is_down",),
        ),
        Mutant(
            "redis-unpublished",
            "The row of a launch without the broker stays unpublished, so that reconcile publishes it.",
            (Edit(LAUNCH, "publish_jobs", "mark_unpublished(executor, unsent, marked[unsent[0]])", "pass"),),
            (f"{TEST_LAUNCH}::{UNPUBLISHED}",),
        ),
        Mutant(
            "redis-launches",
            "Of the jobs of a transaction, only one waits for the broker while it is unavailable.",
            (
                Edit(
                    LAUNCH,
                    "_send",
                    "except BROKER_UNAVAILABLE:\n        raise",
                    "except BROKER_UNAVAILABLE:\n        return False",
                ),
            ),
            (f"{TEST_MASS_ACTIONS}::TestLaunchingSeveralJobs::test_unavailable_broker_is_tried_once[sqlite]",),
        ),
        Mutant(
            "redis-cancel",
            "A cancellation request is stored until it can be completed.",
            (Edit(JOBS, "cancel_jobs", "except REDIS_UNAVAILABLE as error:", "except ZeroDivisionError as error:"),),
            (f"{TEST_TASKS_PAGES}::test_cancel_while_redis_is_down",),
        ),
        Mutant(
            "redis-outcome",
            "A worker holds a result until Redis accepts it.",
            (
                Edit(
                    SETTINGS, "_results", '"result_backend_always_retry": True', '"result_backend_always_retry": False'
                ),
            ),
            (NEXT_STEP,),
        ),
        Mutant(
            "redis-retry",
            "A retry without the broker is published once Redis is available again.",
            (Edit(TRANSITIONS, "store_retry", '"published_at": None', '"published_at": NOW'),),
            (f"{TEST_RETRY}::test_retry_is_stored_before_it_is_published[sqlite]",),
        ),
        Mutant(
            "retry-order",
            "A retry is published once the row waits for it.",
            (
                Edit(
                    WORKER,
                    "JobTask.apply_async",
                    "if claim is None or claim.ended or task_id != claim.task_id:",
                    "if True:",
                ),
            ),
            (f"{TEST_RETRY}::test_retry_is_stored_before_it_is_published[sqlite]",),
        ),
        Mutant(
            "retry-due",
            "A retry with a pause is published when it is due, and not earlier.",
            (
                Edit(RECONCILE, "_may_need_repair", "Task.eta <= now", "sa.true()"),
                Edit(RECONCILE, "_missing_message", "IS_DUE if step.eta <= now", "IS_DUE if True"),
            ),
            (f"{TEST_RETRY}::test_retry_with_a_pause_is_published_when_it_is_due[sqlite]",),
        ),
        Mutant(
            "retry-database",
            "A retry waits for a database that is unavailable.",
            (
                Edit(
                    RESULT_BACKEND,
                    "DatabaseResultBackend._update_row_patiently",
                    "if writer.claim is None or state != states.RETRY:",
                    "if True:",
                ),
            ),
            (f"{TEST_RETRY}::test_retry_waits_for_an_unavailable_database[sqlite]",),
        ),
        Mutant(
            "retry-superseded",
            "A retry that has run already is not published again.",
            (Edit(TRANSITIONS, "_PUBLISHED", "UNFINISHED, _CURRENT", "UNFINISHED"),),
            (f"{TEST_RETRY}::test_superseded_retry_is_not_published[sqlite]",),
        ),
        Mutant(
            "retry-number",
            "A retry that reconcile publishes has the number of the retry.",
            (Edit(RECONCILE, "_publish_again", "step.retry_signature or step.signature", "step.signature"),),
            (f"{TEST_RETRY}::test_retry_message_has_number_of_retry[sqlite-True]",),
        ),
        Mutant(
            "retry-surplus",
            "A message from before a retry does not start the retry.",
            (Edit(TRANSITIONS, "_CLAIM", "        _NOT_SUPERSEDED,\n", ""),),
            (f"{TEST_RETRY}::test_message_from_before_a_retry_is_refused[sqlite]",),
        ),
        Mutant(
            "claim-reason",
            "A claim is refused only for a reason that was read.",
            (Edit(TRANSITIONS, "_refusal", "if row.crashed_too_often:", "if True:"),),
            (f"{TEST_CLAIM}::test_claim_starts_over_if_reason_has_passed[sqlite]",),
        ),
        Mutant(
            "redis-retry-state",
            "A retry without Redis is stored in the row.",
            (
                Edit(
                    RESULT_BACKEND, "DatabaseResultBackend._store_in_redis", "if state in states.FINISHED:", "if True:"
                ),
            ),
            (f"{TEST_OUTAGES}::test_retry_is_published_once_redis_is_back[sqlite]",),
        ),
        Mutant(
            "redis-place",
            "A message whose acknowledgement Redis refuses leaves its place in the worker to another one.",
            (Edit(TRANSPORT, "QoS._place_freed", "virtual.QoS.ack(self, delivery_tag)", "pass"),),
            (f"{TEST_REFUSALS}::test_message_leaves_its_place_if_it_cannot_be_acknowledged",),
        ),
        Mutant(
            "redis-worker",
            "A worker survives messages that belong to a closed connection.",
            (
                Edit(
                    TRANSPORT,
                    "Channel.conn_or_acquire",
                    'raise exceptions.ConnectionError("the connection to Redis was closed")',
                    "pass",
                ),
            ),
            (NEXT_STEP,),
        ),
        Mutant(
            "redis-beat",
            "Beat survives an outage of Redis.",
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
            "Beat repairs its schedule after Redis has lost or damaged a part of it.",
            (Edit(SCHEDULER, "Scheduler._tick", "self.setup_schedule()", "pass"),),
            (f"{TEST_BEAT}::test_next_tick_repairs_schedule[evicted-sqlite]",),
        ),
        Mutant(
            "redis-refuses-beat",
            "Beat starts while Redis refuses to write.",
            (Edit(SCHEDULER, "Scheduler.__init__", '"lazy": True', '"lazy": False'),),
            (REFUSAL,),
        ),
        Mutant(
            "redis-refuses-worker",
            "A worker waits while Redis refuses commands.",
            (
                Edit(
                    TRANSPORT,
                    "Transport",
                    "(*redis.Transport.connection_errors, exceptions.ResponseError)",
                    "redis.Transport.connection_errors",
                ),
            ),
            (REFUSAL,),
        ),
        Mutant(
            "sentinel-transport",
            "With Redis Sentinel, a worker keeps its transport after a failover, and so survives malformed messages.",
            (Edit(TRANSPORT, "SentinelTransport.__init__", "client.cycle = None", ""),),
            (f"{TEST_SENTINEL}::test_failover_delays_jobs_and_ends_no_process",),
        ),
        Mutant(
            "redis-refuses-result",
            "A result that Redis refuses is stored once Redis accepts it.",
            (
                Edit(
                    RESULT_BACKEND,
                    "DatabaseResultBackend.exception_safe_to_retry",
                    "super().exception_safe_to_retry(exc) or refuses(exc)",
                    "super().exception_safe_to_retry(exc)",
                ),
            ),
            (REFUSAL,),
        ),
        Mutant(
            "smtp-permanent",
            "A permanent SMTP error fails the task with the reply of the server.",
            (Edit(SENDING, "_handle_failure", "if failure.rule.final:", "if False:"),),
            (f"{TEST_EXPORT_MAIL}::test_permanent_refusal_fails_with_server_reply[sqlite]",),
        ),
        Mutant(
            "smtp-temporary",
            "A temporary SMTP error is retried.",
            (Edit(SENDING, "_handle_failure", "if failure.rule.final:", "if True:"),),
            (f"{TEMPORARY}[sqlite-451 4.3.0 later]",),
        ),
        Mutant(
            "smtp-disconnect",
            "A lost SMTP connection is retried.",
            (Edit(SMTP, "RULES", '"MAIL_SERVER, MAIL_PORT and MAIL_USE_SSL"', '"MAIL_SERVER", True'),),
            (f"{TEMPORARY}[sqlite-drop]",),
        ),
        Mutant(
            "smtp-phase",
            "A permanent SMTP error about the sender is retried.",
            (Edit(SMTP, "RULES", '"MAIL_DEFAULT_SENDER"),', '"MAIL_DEFAULT_SENDER", True),'),),
            (f"{FAILURE}[MAIL FROM 550 5.7.1 Sender refused-sqlite]",),
        ),
        Mutant(
            "smtp-relay",
            "A permanent SMTP error about relaying is retried.",
            (Edit(SMTP, "RULES", 'Rule((Phase.RCPT,), r"5\\d\\d 5', 'Rule((Phase.RCPT,), r"not a reply 5'),),
            (f"{FAILURE}[RCPT TO 554 5.7.1 Delivery not authorized-sqlite]",),
        ),
        Mutant(
            "smtp-pauses-grow",
            "The pauses between deliveries grow.",
            (Edit(SENDING, "_retry_later", "INITIAL_BACKOFF * 2 ** min(task.attempt - 1, 10)", "INITIAL_BACKOFF"),),
            (PAUSES,),
        ),
        Mutant(
            "smtp-pauses-jitter",
            "The pauses between deliveries have random jitter.",
            (Edit(SENDING, "_retry_later", " * random.uniform(0.75, 1.25)", ""),),
            (PAUSES,),
        ),
        Mutant(
            "smtp-window",
            "Delivery is not retried after MAIL_RETRY_WINDOW.",
            (
                Edit(
                    SENDING,
                    "_retry_later",
                    "if now + timedelta(seconds=pause) > started_at + window:",
                    "if False:",
                ),
            ),
            (f"{TEST_MAIL}::test_delivery_fails_after_retry_window",),
        ),
        *databases.UNAVAILABLE,
    ),
)
