"""How users are told what became of their exports."""

from __future__ import annotations

from flask import url_for
from flask_babel import gettext as _

from microblog.notifications import kinds
from microblog.notifications.kinds import Told
from microblog.notifications.models import Notification
from microblog.taskqueue import states


@kinds.tells("export_posts")
def told_of_exports(rows: list[Notification]) -> dict[int, Told]:
    """That an export is ready or has failed, with the way to the jobs, where its archive or the reason is."""
    return {
        row.id: Told(
            _("Your export is ready.") if row.payload["state"] == states.SUCCESS else _("Your export has failed."),
            url_for("tasks.index"),
        )
        for row in rows
    }
