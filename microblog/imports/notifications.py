"""Rendering of notifications about finished imports."""

from __future__ import annotations

from flask import url_for
from flask_babel import gettext as _

from microblog.notifications import renderers
from microblog.notifications.models import Notification
from microblog.notifications.renderers import RenderedNotification
from microblog.taskqueue import states


@renderers.renders("import_posts")
def render_import_notifications(rows: list[Notification]) -> dict[int, RenderedNotification]:
    """Render the end of an import, successful or failed, with a link to the jobs page, which has the details."""
    return {
        row.id: RenderedNotification(
            _("Your import is done.") if row.payload["state"] == states.SUCCESS else _("Your import has failed."),
            url_for("tasks.index"),
        )
        for row in rows
    }
