"""Asks the workers for a sign of life, and is content with the first.

Celery's own ``control.ping`` is made for a terminal. Called every few seconds by probes it counts a late answer to
the question before as the answer to this one, and then says that there is no worker; it leaves one key in Redis for
each late answer; and it takes two connections out of a pool, so that ten callers at once wait for each other for
ever. This one has a connection of its own, takes only answers to its own question, and has them sent to the one
address that its process keeps.
"""

from __future__ import annotations

import os
import socket
from typing import Any, NoReturn

from celery import Celery
from kombu.pidbox import Mailbox


class _Answered(Exception):
    """A worker has answered."""


class _ProcessMailbox(Mailbox):
    """A mailbox whose answers come to the same queue each time; whatever came late is gone with the next call."""

    @property
    def oid(self) -> str:
        """The name of that queue."""
        return f"ping-{socket.gethostname()}-{os.getpid()}"


def any_worker_answers(app: Celery, timeout: float) -> bool:
    """Whether a worker answers within `timeout` seconds. Returns with the first answer.

    One call at a time for each process. Raises kombu.exceptions.OperationalError if the broker is away.
    """
    with app.connection_for_write() as connection:
        mailbox = _ProcessMailbox(  # type: ignore[no-untyped-call]
            app.conf.control_exchange,
            type="fanout",
            connection=connection,
            accept=app.conf.accept_content,
            serializer=app.conf.task_serializer,
        )
        try:
            mailbox.multi_call("ping", timeout=timeout, callback=_stop)  # type: ignore[no-untyped-call]
        except _Answered:
            return True
    return False


def _stop(answer: dict[str, Any]) -> NoReturn:
    raise _Answered
