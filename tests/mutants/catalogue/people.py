"""Who may see what, what a message tells, and what programs can read."""

from __future__ import annotations

from tests.mutants.mutant import Edit, Mutant, Promise

ACCOUNTS = "microblog/accounts/models.py"
API_JOBS = "microblog/api/jobs.py"
EXPORTS_ARCHIVE = "microblog/exports/archive.py"
EXPORTS = "microblog/exports/services.py"
JOB = "microblog/jobs/models.py"
JOBS_ROUTES = "microblog/jobs/routes.py"
SEE = "microblog/monitoring/cli/jobs.py"
NOTIFICATIONS_PUBSUB = "microblog/notifications/pubsub.py"
SETTINGS = "microblog/taskqueue/celery_settings.py"

TEST_API = "tests/integration/test_api.py"
TEST_CLI = "tests/integration/test_cli.py"
TEST_EXPORTS = "tests/integration/test_exports.py"
TEST_LAUNCH = "tests/integration/test_launch.py"
TEST_NOTIFICATIONS = "tests/integration/test_notifications.py"
TEST_TASKS_PAGES = "tests/integration/test_tasks_pages.py"

PRINTS_JSON = f"{TEST_CLI}::test_every_command_has_json_output"
OWN_EXPORT = "test_export_message_contains_only_user_id"

THEIRS = Promise(
    "A user sees, cancels, retries and downloads only what is theirs; operators see all",
    (
        Mutant(
            "own-job",
            "A job is found for its own user: to see, to cancel, to try again.",
            (Edit(JOB, "find_job", "query = query.where(Task.user_id == user_id)", "pass"),),
            (
                f"{TEST_TASKS_PAGES}::test_task_of_another_user_is_not_found",
                f"{TEST_API}::TestTasks::test_foreign_task_looks_like_unknown_task",
            ),
        ),
        Mutant(
            "own-list",
            "The list of jobs has the user's own.",
            (Edit(JOBS_ROUTES, "index", "Task.user_id == current_user.id, ", ""),),
            (f"{TEST_TASKS_PAGES}::test_pages_hide_jobs_of_other_users",),
        ),
        Mutant(
            "own-list-api",
            "So has the API's.",
            (Edit(API_JOBS, "index", "Task.user_id == caller().id, ", ""),),
            (f"{TEST_API}::TestTasks::test_list_has_only_own_jobs",),
        ),
        Mutant(
            "own-recent",
            "So have the cards on every page.",
            (Edit(JOB, "newest_jobs", ".where(Task.user_id == user_id)", ""),),
            (f"{TEST_TASKS_PAGES}::test_pages_hide_jobs_of_other_users",),
        ),
        Mutant(
            "own-changes",
            "So has the polling fallback.",
            (Edit(JOB, "jobs_changed_since", "Task.user_id == user_id, ", ""),),
            (f"{TEST_NOTIFICATIONS}::test_poll_excludes_events_of_other_users",),
        ),
        Mutant(
            "own-stream",
            "So has the live stream.",
            (
                Edit(
                    NOTIFICATIONS_PUBSUB,
                    "Hub._dispatch",
                    "for topic in topics for one in self._subscriptions.get(topic, ())",
                    "for listening in self._subscriptions.values() for one in listening",
                ),
            ),
            (f"{TEST_NOTIFICATIONS}::test_task_event_reaches_pages_of_its_user_only",),
        ),
        Mutant(
            "own-archive",
            "An archive is for its owner, also by a signed link.",
            (Edit(EXPORTS, "find_archive", " or archive.user_id != user_id", ""),),
            (f"{TEST_EXPORTS}::test_large_archive_is_mailed_as_private_link[sqlite]",),
        ),
        Mutant(
            "own-posts",
            "In it are the owner's posts.",
            (Edit(EXPORTS_ARCHIVE, "read_posts", ".where(Post.user_id == user_id)", ""),),
            (f"{TEST_EXPORTS}::test_archive_has_only_own_posts",),
        ),
    ),
)

MESSAGES = Promise(
    "Messages carry ids, never passwords, tokens or bodies; JSON only",
    (
        Mutant(
            "message-id",
            "A job is told its user's id, and looks up the rest.",
            (Edit(ACCOUNTS, "User.launch_task", "self.id, *args", "self.email, *args"),),
            (f"{TEST_LAUNCH}::{OWN_EXPORT}",),
        ),
        Mutant(
            "message-json",
            "Messages are sent as JSON.",
            (Edit(SETTINGS, "_messages", '"task_serializer": "json"', '"task_serializer": "pickle"'),),
            (f"{TEST_LAUNCH}::{OWN_EXPORT}",),
        ),
        Mutant(
            "message-json-only",
            "Nothing else is taken.",
            (Edit(SETTINGS, "_messages", '"accept_content": ["json"]', '"accept_content": ["json", "pickle"]'),),
            (f"{TEST_LAUNCH}::test_worker_refuses_pickle_message[sqlite]",),
        ),
    ),
)

JSON = Promise(
    "Whatever `flask tasks` prints is also there as `--json`",
    (
        Mutant(
            "json-list",
            "The list of jobs.",
            (Edit(SEE, "list_jobs", "if as_json:", "if False:"),),
            (PRINTS_JSON,),
        ),
        Mutant(
            "json-show",
            "All that is known of one.",
            (Edit(SEE, "show", "if as_json:", "if False:"),),
            (PRINTS_JSON,),
        ),
        Mutant(
            "json-steer",
            "What became of a cancellation, and of another attempt.",
            (Edit(SEE, "_steer", "if as_json:", "if False:"),),
            (PRINTS_JSON,),
        ),
    ),
)
