"""How users are told who follows them."""

from __future__ import annotations

import sqlalchemy as sa
from flask import url_for
from flask_babel import gettext as _

from microblog.accounts.followers import FOLLOWER
from microblog.accounts.models import User
from microblog.extensions import db
from microblog.notifications import kinds
from microblog.notifications.kinds import Told
from microblog.notifications.models import Notification


@kinds.tells(FOLLOWER)
def told_of_followers(rows: list[Notification]) -> dict[int, Told]:
    """Who began to follow the reader, with the way to their profile."""
    names = names_of_actors(rows)
    return {
        row_id: Told(_("%(name)s began to follow you.", name=name), url_for("posts.profile", username=name))
        for row_id, name in names.items()
    }


def names_of_actors(rows: list[Notification]) -> dict[int, str]:
    """Who did what `rows` tell of, by the ids of the rows; without those whose account is being deleted."""
    actors = {row.actor_id for row in rows}
    query = sa.select(User.id, User.username).where(User.id.in_(actors), User.deleted_at.is_(None))
    names = dict(db.session.execute(query).all())
    return {row.id: names[row.actor_id] for row in rows if row.actor_id in names}
