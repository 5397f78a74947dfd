"""A backlog: as many exports as users at once, and a mail for a new password in the middle of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise

import sqlalchemy as sa

from bench.figures import Figure, state
from bench.servers import OURS, Servers, add_users
from microblog.accounts.models import User
from microblog.accounts.services import request_password_reset
from microblog.exports.services import export_job
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.launch import launch
from microblog.taskqueue.models import Task
from tests.support.servers import wait_for
from tests.support.smtp import SmtpServer

MANY = 10_000
JOB_TIMEOUT = 3600.0  # seconds
ARCHIVE = "Your blog posts"  # in the subject of the mail with an archive


def run(servers: Servers, exports: int = MANY) -> Iterator[Figure]:
    """Yield the figures for each database: surplus messages, the longest pause, and the time of the mail."""
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # of the SMTP server
    smtp = SmtpServer()
    smtp.start()
    try:
        for database in servers.databases:
            yield from _measure(servers, database, exports, smtp)
    finally:
        smtp.stop()


def _measure(servers: Servers, database: str, exports: int, smtp: SmtpServer) -> Iterator[Figure]:
    smtp.reset()
    environment = servers.environment(database) | {"MAIL_PORT": str(smtp.port)}
    with servers.app(environment), servers.worker(environment, OURS):
        published = _pushes(servers)
        for user_id in add_users(exports):
            launch(export_job(user_id), user_id=user_id)
            db.session.commit()
        wait_for(lambda: _ended() >= exports // 2, timeout=JOB_TIMEOUT, what="half of the exports have ended")
        mail_time = _mail_time(smtp)
        wait_for(lambda: _ended() == exports, timeout=JOB_TIMEOUT, what="all exports have ended")
        mails = 1
        steps = 2 * exports + mails
        messages = (_pushes(servers) - published) / steps
        assert len(smtp.deliveries) == exports + mails
        name = f"{exports:,} exports, {database}"
        yield state(f"{name}: messages ÷ steps", messages, "", at_most=1.05)
        yield state(f"{name}: longest pause between two ends", _longest_pause(), "s", at_most=5)
        yield state(f"{name}: a mail in the middle of them", mail_time, "s", at_most=5)


def _pushes(servers: Servers) -> int:
    """Return how many messages were sent to queues since Redis was started."""
    statistics: dict[str, dict[str, int]] = servers.redis.client.info("commandstats")
    return statistics.get("cmdstat_lpush", {}).get("calls", 0)


def _ended() -> int:
    """Return the number of exports that were mailed."""
    db.session.rollback()
    mailed = sa.select(sa.func.count()).where(Task.position == 1, Task.state == states.SUCCESS)
    return db.session.scalar(mailed) or 0


def _mail_time(smtp: SmtpServer) -> float:
    """Return the seconds from the request of a new password to its mail."""
    address = db.session.scalars(sa.select(User.email).limit(1)).one()
    began = time.time()
    request_password_reset(address)
    db.session.commit()

    def delivered_at() -> float:
        return max((mail.ended for mail in smtp.deliveries if ARCHIVE not in mail.message["Subject"]), default=0.0)

    return wait_for(delivered_at, what="the mail arrives") - began


def _longest_pause() -> float:
    """Return the seconds of the longest time in which no export ended."""
    times: list[datetime] = list(
        db.session.scalars(sa.select(Task.finished_at).where(Task.position == 1).order_by(Task.finished_at))
    )
    return max((later - earlier).total_seconds() for earlier, later in pairwise(times))
