"""What can go wrong with a task, as types, and as the one sentence that its user reads."""

from __future__ import annotations

from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from celery.exceptions import Ignore, TaskRevokedError
from flask_babel import gettext as _


class JobError(Exception):
    """Raised by a task that cannot succeed, with a sentence fit for its user."""


class WorkerDied(Exception):
    """A task took its worker down with it too often (``TASK_MAX_CRASHES``)."""


class KindGone(Exception):
    """A task is of a kind that no process knows any longer."""


class Cancelled(Exception):
    """Raised inside a task whose cancellation was asked for; the task cleans up and lets it pass."""


class ClaimRefused(Ignore):
    """This message must not run; it is acknowledged and dropped.

    `ending` is what its task ends with, for a task that nobody will ever run.
    """

    ending: Exception | None = None


class ClaimLost(Ignore):
    """This attempt was taken over by another: nothing that it writes counts any more."""


def sentence(error: BaseException) -> str:
    """What the user is told about `error`, in the language in force: no names of classes, no secrets."""
    return str(_sentence(error))


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
        case KindGone():
            return _("This kind of job no longer exists.")
        case _:
            return _("Something went wrong on our side. It has been noted; please try again later.")
