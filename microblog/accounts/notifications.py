"""Rendering of notifications about new followers."""

from __future__ import annotations

import sqlalchemy as sa
from flask import url_for
from flask_babel import gettext as _

from microblog.accounts.models import User
from microblog.accounts.services import FOLLOWER
from microblog.extensions import db
from microblog.notifications import renderers
from microblog.notifications.models import Notification
from microblog.notifications.renderers import RenderedNotification


@renderers.renders(FOLLOWER)
def render_follower_notifications(rows: list[Notification]) -> dict[int, RenderedNotification]:
    """Render the names of new followers, with links to their profiles."""
    names = actor_names(rows)
    return {
        row_id: RenderedNotification(
            _("%(name)s began to follow you.", name=name), url_for("posts.profile", username=name)
        )
        for row_id, name in names.items()
    }


def actor_names(rows: list[Notification]) -> dict[int, str]:
    """Return the names of the actors of `rows`, by row id, without those whose account is being deleted."""
    actors = {row.actor_id for row in rows}
    query = sa.select(User.id, User.username).where(User.id.in_(actors), User.deleted_at.is_(None))
    names = dict(db.session.execute(query).all())
    return {row.id: names[row.actor_id] for row in rows if row.actor_id in names}
