"""publish(): the only way a message with a row is sent, so that of several who try one does."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from celery import Signature
from kombu.exceptions import OperationalError as BrokerAway
from redis.exceptions import RedisError

from microblog.clock import utcnow
from microblog.taskqueue.claim import NOW, UNFINISHED
from microblog.taskqueue.rows import DatabaseAway, Rows, table

logger = logging.getLogger(__name__)

# Whoever wins this UPDATE publishes; `seen` is the published_at that it replaces.
_TAKE = sa.update(table).where(table.c.id == sa.bindparam("task_id"), UNFINISHED).values(published_at=NOW)
_TAKE_NEW = _TAKE.where(table.c.published_at.is_(None)).returning(table.c.id)
_TAKE_AGAIN = _TAKE.where(table.c.published_at == sa.bindparam("seen")).returning(table.c.id)
_GIVE_BACK = (
    sa.update(table).where(table.c.id == sa.bindparam("task_id"), table.c.published_at == NOW).values(published_at=None)
)


def publish(rows: Rows, signatures: Sequence[dict[str, Any]], *results: Any, seen: datetime | None = None) -> bool:
    """Publish what remains of a job: its next step, with the steps behind it chained to it.

    `signatures` are the rows' own, in order; `results` holds what the step before returned, for a step that has one
    before it. Only one of several callers publishes: the one that finds `published_at` as it was `seen`, None for
    the first time. Returns whether this call did. A broker that is away makes it False, and the row unpublished.
    """
    task_id = signatures[0]["options"]["task_id"]
    now = utcnow()
    take, found = (_TAKE_NEW, {}) if seen is None else (_TAKE_AGAIN, {"seen": seen})
    try:
        if not rows.execute(take, task_id=task_id, now=now, **found):
            return False
        first, *behind = (Signature.from_dict(signature) for signature in signatures)
        # As chain(…).apply_async() does it when it has given out ids, which these steps have already.
        first.apply_async(results, chain=behind[::-1] or None)
    except DatabaseAway:
        logger.warning("the database is away; %s is published later", task_id)
        return False
    except Exception as error:  # the commit has happened: whatever is wrong must not look as if it had not
        if isinstance(error, (BrokerAway, RedisError, OSError)):
            logger.warning("the broker is away; %s is published later", task_id)
        else:
            logger.exception("%s cannot be published", task_id)
        with contextlib.suppress(DatabaseAway):  # it then looks published, and is missed like a lost message
            rows.execute(_GIVE_BACK, task_id=task_id, now=now)
        return False
    return True
