"""Errors of the engine and of tasks, and the sentences in which users read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, TaskRevokedError
from flask_babel import gettext as _

if TYPE_CHECKING:
    from microblog.taskqueue.models import Task


class JobError(Exception):
    """Raised by a task that cannot succeed, with a sentence fit for its user."""


class UserError(JobError):
    """A JobError about what the user gave or did: operators cannot correct it, so that it has no traceback."""


class WorkerDied(Exception):
    """The workers that ran a task died too often (``TASK_MAX_CRASHES``)."""


class TaskNotRegistered(Exception):
    """No process has a task of this name any more."""


class Cancelled(Exception):
    """Raised inside a task whose user asked to cancel it; the task cleans up and lets it propagate."""


class ClaimRefused(Ignore):
    """This message must not run; it is acknowledged and dropped.

    `final_error` is the error with which its task ends, if no message will ever run it.
    """

    final_error: Exception | None = None


class AlreadyFinished(ClaimRefused):
    """The row is in a terminal state."""


class HeldElsewhere(ClaimRefused):
    """Another attempt's lease is live."""


class Superseded(ClaimRefused):
    """An automatic retry has been stored since the message was published."""


class NoRow(ClaimRefused):
    """A launched task has no row: it was purged, or the message is of another site."""


class CancelRequested(ClaimRefused):
    """The user asked for the job to be cancelled."""

    final_error = TaskRevokedError("cancelled")


class TooManyCrashes(ClaimRefused):
    """As many workers as allowed have died while running the task."""

    final_error = WorkerDied("too many crashes")


class NotClaimed(Ignore):
    """The claim failed for a reason that will not pass by itself; the message is dropped, and nothing is stored."""


class ClaimLost(Ignore):
    """Another attempt has taken the task over; nothing that this attempt writes is accepted any more."""


class AlreadyRunning(Exception):
    """The user has an unfinished job with a step of the same name; `task` is that step's row, None if it has ended."""

    def __init__(self, task: Task | None) -> None:
        super().__init__("an unfinished job of this kind exists")
        self.task = task


def user_message(error: BaseException) -> str:
    """Return the sentence for the user about `error`, in the current locale, without class names and secrets."""
    try:
        return str(_sentence(error))
    except Exception:  # of a JobError with a __str__() of its own
        return str(_sentence(Exception()))


def _sentence(error: BaseException) -> Any:
    match error:
        case JobError():
            return str(error)
        case TaskRevokedError() | Cancelled():
            return _("It was cancelled.")
        case SoftTimeLimitExceeded() | TimeLimitExceeded():
            return _("It took longer than it may and was stopped.")
        case WorkerDied() | WorkerLostError():
            return _("The process that worked on it died, again and again, so it was given up.")
        case TaskNotRegistered():
            return _("This kind of job no longer exists.")
        case _:
            return _("Something went wrong on our side. It has been noted; please try again later.")
