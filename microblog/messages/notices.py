"""How users are told who wrote to them."""

from __future__ import annotations

from flask import url_for
from flask_babel import gettext as _
from flask_babel import ngettext

from microblog.accounts.notices import names_of_actors
from microblog.messages.correspondence import KIND, unread_from
from microblog.notifications import badges, kinds
from microblog.notifications.kinds import Told
from microblog.notifications.models import Notification


@kinds.tells(KIND)
def told_of_messages(rows: list[Notification]) -> dict[int, Told]:
    """Who wrote, and how many new messages there are of them, with the way to the conversation."""
    names = names_of_actors(rows)
    senders = {row.id: row.actor_id for row in rows if row.actor_id is not None}
    new = unread_from(rows[0].user_id, senders.values())
    return {
        row_id: Told(_sentence(name, new.get(senders[row_id], 0)), url_for("messages.conversation", username=name))
        for row_id, name in names.items()
    }


def _sentence(name: str, new: int) -> str:
    if new >= badges.MOST:
        more: str = _("%(name)s wrote you more than %(count)s new messages.", name=name, count=badges.MOST - 1)
        return more
    sentence: str = (
        ngettext("%(name)s wrote you a message.", "%(name)s wrote you %(num)s new messages.", new, name=name)
        if new
        else _("%(name)s wrote to you.", name=name)
    )
    return sentence
