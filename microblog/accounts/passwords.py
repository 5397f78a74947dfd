"""A new password, which ends everything that the old one opened."""

from __future__ import annotations

import sqlalchemy as sa
from werkzeug.security import generate_password_hash

from microblog.accounts.models import User
from microblog.accounts.signals import password_changed
from microblog.extensions import db
from microblog.notifications.live import end_streams


def replace(user: User, password: str) -> bool:
    """Give `user` a new password, and commit that: sessions, links and tokens of the old one end.

    False, and nothing done, if it was changed by somebody else since `user` was read, or the account is closed.
    """
    known, replacement = user.password_hash, generate_password_hash(password)
    replaced = db.session.scalar(
        sa.update(User)
        .where(User.id == user.id, User.password_hash == known, User.deleted_at.is_(None))
        .values(password_hash=replacement)
        .returning(User.id)
    )
    if replaced is None:
        db.session.rollback()
        return False
    password_changed.send(user)
    db.session.commit()
    end_streams(replaced)
    return True
