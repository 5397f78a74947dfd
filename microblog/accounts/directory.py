"""Users by name: one of them, and all, page by page."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa
from flask import abort
from flask_babel import gettext as _

from microblog.accounts.models import MAX_USERNAME, USERNAME, User
from microblog.extensions import db
from microblog.paging import InvalidKey


def user_called(username: str) -> User:
    """The user of that name. Raises werkzeug's NotFound."""
    return User.with_username(username) or abort(404, _("There is nobody of this name."))


class Names(NamedTuple):
    """A page of users, A before Z; behind which name the next page begins, and before which the one before ends."""

    users: list[User]
    next: str | None
    prev: str | None


def users_by_name(size: int, before: str | None = None, after: str | None = None) -> Names:
    """The page of at most `size` users that begins `after` a name or ends `before` one; without either, the first.

    Raises InvalidKey for both, and for what is no name.
    """
    if before is not None and after is not None:
        raise InvalidKey
    if before is not None:
        users = _read(before, size, upward=True)[::-1]
        if len(users) > size:
            return Names(users[1:], users[-1].username, users[1].username)
    # Near the beginning the first page is shown whole, not one of two or three.
    users = _read(after, size, upward=False)
    following = users[size - 1].username if len(users) > size else None
    page = users[:size]
    if after is None:
        return Names(page, following, None)
    return Names(page, following, page[0].username if page else after)


def _read(edge: str | None, size: int, *, upward: bool) -> list[User]:
    """One page and one user more, behind the name `edge`; towards A if `upward`."""
    name = sa.func.lower(User.username)
    query = sa.select(User).where(User.deleted_at.is_(None)).order_by(name.desc() if upward else name).limit(size + 1)
    if edge is not None:
        if USERNAME.match(edge) is None or len(edge) > MAX_USERNAME:
            raise InvalidKey
        query = query.where(name < edge.lower() if upward else name > edge.lower())
    return list(db.session.scalars(query))
