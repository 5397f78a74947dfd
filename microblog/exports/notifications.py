"""Rendering of notifications about finished exports."""

from __future__ import annotations

from flask import url_for
from flask_babel import gettext as _

from microblog.notifications import renderers
from microblog.notifications.models import Notification
from microblog.notifications.renderers import RenderedNotification
from microblog.taskqueue import states


@renderers.renders("export_posts")
def render_export_notifications(rows: list[Notification]) -> dict[int, RenderedNotification]:
    """Render that an export is ready or has failed; the link leads to the jobs page with the archive or the error."""
    return {
        row.id: RenderedNotification(
            _("Your export is ready.") if row.payload["state"] == states.SUCCESS else _("Your export has failed."),
            url_for("tasks.index"),
        )
        for row in rows
    }
