"""Making an account and changing its profile, once what was typed has been looked at."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError

from microblog.accounts.models import User
from microblog.extensions import db


def sign_up(username: str, email: str, password: str) -> User | None:
    """Make an account, and commit that; None if another took the name or the address in this very moment."""
    user = User(username=username, email=email)
    user.set_password(password)
    db.session.add(user)
    return user if _committed() else None


def change(user: User, **changes: str | None) -> bool:
    """Keep what `user` changes of their profile; False if another took the name in this very moment.

    `changes` are by column: username, about_me, locale, timezone.
    """
    for column, value in changes.items():
        setattr(user, column, value)
    return _committed()


def _committed() -> bool:
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        return False
    return True
