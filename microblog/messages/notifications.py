"""Rendering of notifications about private messages."""

from __future__ import annotations

from flask import url_for
from flask_babel import gettext as _
from flask_babel import ngettext

from microblog.accounts.notifications import actor_names
from microblog.messages.services import KIND, count_unread_by_sender
from microblog.notifications import renderers, unread_counts
from microblog.notifications.models import Notification
from microblog.notifications.renderers import RenderedNotification


@renderers.renders(KIND)
def render_message_notifications(rows: list[Notification]) -> dict[int, RenderedNotification]:
    """Render the sender and the number of their new messages, with a link to the conversation."""
    names = actor_names(rows)
    senders = {row.id: row.actor_id for row in rows if row.actor_id is not None}
    new = count_unread_by_sender(rows[0].user_id, senders.values())
    return {
        row_id: RenderedNotification(
            _sentence(name, new.get(senders[row_id], 0)), url_for("messages.conversation", username=name)
        )
        for row_id, name in names.items()
    }


def _sentence(name: str, new: int) -> str:
    if new >= unread_counts.MAX_COUNT:
        more: str = _(
            "%(name)s wrote you more than %(count)s new messages.", name=name, count=unread_counts.MAX_COUNT - 1
        )
        return more
    message: str = (
        ngettext("%(name)s wrote you %(num)s new message.", "%(name)s wrote you %(num)s new messages.", new, name=name)
        if new
        else _("%(name)s wrote to you.", name=name)
    )
    return message
