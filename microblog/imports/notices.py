"""How users are told what became of their imports."""

from __future__ import annotations

from flask import url_for
from flask_babel import gettext as _

from microblog.notifications import kinds
from microblog.notifications.kinds import Told
from microblog.notifications.models import Notification
from microblog.taskqueue import states


@kinds.tells("import_posts")
def told_of_imports(rows: list[Notification]) -> dict[int, Told]:
    """That an import is done or has failed, with the way to the jobs, where its report or the reason is."""
    return {
        row.id: Told(
            _("Your import is done.") if row.payload["state"] == states.SUCCESS else _("Your import has failed."),
            url_for("tasks.index"),
        )
        for row in rows
    }
