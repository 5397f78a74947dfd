"""Access to jobs, the content of messages, and output as JSON."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Promise

CONSUMER = "microblog/taskqueue/consumer.py"
TRANSPORT = "microblog/taskqueue/transport.py"
ACCOUNTS = "microblog/accounts/models.py"
EXPORTS_ARCHIVE = "microblog/exports/archive.py"
EXPORTS = "microblog/exports/services.py"
JOBS_MODELS = "microblog/jobs/models.py"
CLI_JOBS = "microblog/monitoring/cli/jobs.py"
NOTIFICATIONS_PUBSUB = "microblog/notifications/pubsub.py"
SETTINGS = "microblog/taskqueue/celery_settings.py"
WORKER = "microblog/taskqueue/worker.py"

TEST_DEAD_LETTERS = "tests/integration/test_dead_letters.py"
TEST_API = "tests/integration/test_api.py"
TEST_CLI = "tests/integration/test_cli.py"
TEST_EVENT_STREAM = "tests/integration/test_event_stream.py"
TEST_EXPORTS = "tests/integration/test_exports.py"
TEST_LAUNCH = "tests/integration/test_launch.py"
TEST_TASKS_PAGES = "tests/integration/test_tasks_pages.py"
TEST_TWO_SITES = "tests/integration/test_two_sites.py"

JSON_IGNORED = '@click.option("--json", is_flag=True, expose_value=False)'
JSON_OUTPUT = f"{TEST_CLI}::test_every_command_has_json_output"
EXPORT_MESSAGE = "test_export_message_contains_only_user_id"

OWN_DATA = Promise(
    "A user sees, cancels, retries and downloads only what is theirs; operators see all",
    (
        Mutant(
            "own-job",
            "A user can read, cancel and retry only their own jobs.",
            (Edit(JOBS_MODELS, "find_job", "query = query.where(Task.user_id == user_id)", "pass"),),
            (
                f"{TEST_TASKS_PAGES}::test_task_of_another_user_is_not_found",
                f"{TEST_API}::TestTasks::test_foreign_task_looks_like_unknown_task",
            ),
        ),
        Mutant(
            "own-list",
            "The list of jobs, as a page and in the API, contains only those of the user.",
            (Edit(JOBS_MODELS, "jobs_of_user", "Task.user_id == user_id, ", ""),),
            (
                f"{TEST_TASKS_PAGES}::test_pages_hide_jobs_of_other_users",
                f"{TEST_API}::TestTasks::test_list_has_only_own_jobs",
            ),
        ),
        Mutant(
            "own-recent",
            "The job cards on every page contain only those of the user.",
            (Edit(JOBS_MODELS, "newest_jobs", ".where(Task.user_id == user_id)", ""),),
            (f"{TEST_TASKS_PAGES}::test_pages_hide_jobs_of_other_users",),
        ),
        Mutant(
            "own-changes",
            "Polling returns only the jobs of the user.",
            (Edit(JOBS_MODELS, "jobs_changed_since", "Task.user_id == user_id, ", ""),),
            (f"{TEST_EVENT_STREAM}::test_poll_excludes_events_of_other_users",),
        ),
        Mutant(
            "own-stream",
            "The event stream contains only the jobs of the user.",
            (
                Edit(
                    NOTIFICATIONS_PUBSUB,
                    "Hub._dispatch",
                    "for topic in topics for one in self._subscriptions.get(topic, ())",
                    "for listening in self._subscriptions.values() for one in listening",
                ),
            ),
            (f"{TEST_EVENT_STREAM}::test_task_event_reaches_pages_of_its_user_only",),
        ),
        Mutant(
            "own-archive",
            "An archive is available only to its owner, even with a signed link.",
            (Edit(EXPORTS, "find_archive", " or archive.user_id != user_id", ""),),
            (f"{TEST_EXPORTS}::test_large_archive_is_mailed_as_private_link[sqlite]",),
        ),
        Mutant(
            "own-site",
            "Sites that share a Redis run only their own jobs, and only their workers answer them.",
            (Edit(SETTINGS, "_broker", '"global_keyprefix": config["REDIS_PREFIX"],', ""),),
            (f"{TEST_TWO_SITES}::test_each_site_runs_and_mails_its_own_exports[2]",),
        ),
        Mutant(
            "launched-has-row",
            "A launched task whose row is missing is not run.",
            (Edit(WORKER, "JobTask._claim", 'claim is None and self.request.get("has_row")', "False"),),
            (f"{TEST_TWO_SITES}::test_launched_message_without_row_is_not_run",),
        ),
        Mutant(
            "own-posts",
            "An archive contains only the posts of its owner.",
            (Edit(EXPORTS_ARCHIVE, "read_posts", ".where(Post.user_id == user_id)", ""),),
            (f"{TEST_EXPORTS}::test_archive_has_only_own_posts",),
        ),
    ),
)

MESSAGES = Promise(
    "Messages carry ids, never passwords, tokens or bodies; JSON only",
    (
        Mutant(
            "malformed-envelope",
            "A queue entry that kombu cannot read ends no worker.",
            (
                Edit(
                    TRANSPORT,
                    "Channel._get_client",
                    "return partial(Client,",
                    "return partial(redis.PrefixedStrictRedis,",
                ),
            ),
            (f"{TEST_DEAD_LETTERS}::test_malformed_message_is_set_aside[text-sqlite]",),
        ),
        Mutant(
            "malformed-task",
            "A message of another producer ends no worker.",
            (
                Edit(
                    CONSUMER, "Consumer.create_task_handler", "if reason := task_problem(message):", "if reason := '':"
                ),
            ),
            (f"{TEST_DEAD_LETTERS}::test_malformed_message_is_set_aside[number as time limit-sqlite]",),
        ),
        Mutant(
            "message-id",
            "A message contains the id of the user, and the task reads everything else from the database.",
            (Edit(ACCOUNTS, "User.launch_task", "self.id, *args", "self.email, *args"),),
            (f"{TEST_LAUNCH}::{EXPORT_MESSAGE}",),
        ),
        Mutant(
            "message-json",
            "Messages are serialized as JSON.",
            (Edit(SETTINGS, "_messages", '"task_serializer": "json"', '"task_serializer": "pickle"'),),
            (f"{TEST_LAUNCH}::{EXPORT_MESSAGE}",),
        ),
        Mutant(
            "message-json-only",
            "Workers accept only JSON.",
            (Edit(SETTINGS, "_messages", '"accept_content": ["json"]', '"accept_content": ["json", "pickle"]'),),
            (f"{TEST_LAUNCH}::test_worker_refuses_pickle_message",),
        ),
    ),
)

JSON = Promise(
    "All output of `flask tasks` is also available as `--json`",
    (
        Mutant(
            "json-list",
            "`flask tasks list` prints JSON.",
            (Edit(CLI_JOBS, "list_jobs", "@json_option", JSON_IGNORED),),
            (JSON_OUTPUT,),
        ),
        Mutant(
            "json-show",
            "`flask tasks show` prints JSON.",
            (Edit(CLI_JOBS, "show", "@json_option", JSON_IGNORED),),
            (JSON_OUTPUT,),
        ),
        Mutant(
            "json-actions",
            "`flask tasks cancel` and `flask tasks retry` print JSON.",
            (
                Edit(CLI_JOBS, "cancel", "@json_option", JSON_IGNORED),
                Edit(CLI_JOBS, "retry", "@json_option", JSON_IGNORED),
            ),
            (JSON_OUTPUT,),
        ),
    ),
)
