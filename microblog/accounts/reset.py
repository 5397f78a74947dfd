"""A forgotten password: a link by mail, for whoever reads the account's mails.

Whether an address has an account is nobody's business. So the same happens for each that is asked about: one lookup,
one job, one message; what differs is left to the worker.
"""

from __future__ import annotations

import sqlalchemy as sa
from flask_babel import gettext as _

from microblog.accounts.models import User
from microblog.extensions import db
from microblog.taskqueue.launch import launch_task
from microblog.taskqueue.models import Task

TASK = "email_password_reset"


def ask(address: str) -> None:
    """Have a link mailed to `address` if it is some user's, and commit that.

    The job is the system's: anybody may ask, and the user's own list is not for anybody to fill.
    """
    user = User.with_email(address)
    launch_task(TASK, _("Mailing a link to set a new password"), user.id if user else None)
    db.session.commit()


def is_on_its_way(user_id: int, task_id: str) -> bool:
    """Whether an earlier task than `task_id` is about to mail a link to the same user, and this one need not.

    Jobs of the system may be as many as you like, so it is looked at here; among several the oldest sends.
    """
    mine = db.session.get(Task, task_id)
    if mine is None:
        return False
    earlier = sa.tuple_(Task.created_at, Task.id) < (mine.created_at, mine.id)
    same_user = Task.signature[("args", 0)].as_integer() == user_id
    query = sa.select(Task.id).where(Task.unfinished, Task.name == TASK, earlier, same_user)
    return db.session.scalar(query.limit(1)) is not None
