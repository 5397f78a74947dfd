"""Remote control of workers: several commands in one broadcast, and the reply of each worker.

Celery's ``inspect`` sends one command at a time, waits its whole timeout even if all workers have replied, and leaves
late replies in Redis for good. Here one broadcast carries all commands; replies go to a Redis list of this request,
which expires; and a worker that receives the request after the caller gave up ignores it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from celery import Celery
from celery.utils.functional import noop
from celery.worker.control import Panel, control_command
from kombu.pidbox import Mailbox
from kombu.utils.json import dumps, loads
from kombu.utils.uuid import uuid
from redis.exceptions import RedisError

from microblog.extensions import redis_client
from microblog.taskqueue.interface import celery_app

logger = logging.getLogger(__name__)

Questions = Mapping[str, Mapping[str, Any]]  # Celery's remote control commands, each with its arguments

ASKED = "microblog:asked:{}"  # in Redis while somebody waits for the answers
ANSWERS = "microblog:answers:{}"
ANSWERS_KEPT = 60  # seconds
ONE_LOOK = 0.5  # seconds; shorter than any socket's timeout


def broadcast_and_collect(
    questions: Questions, timeout: float, *, expected: Collection[str], only: Collection[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Ask all workers, or `only` some; returns what each said to each question, by the names of both.

    Returns as soon as all that are `expected` have answered, else after `timeout` seconds. What a worker could not
    do is ``{"error": …}``. Raises redis.exceptions.RedisError or kombu.exceptions.OperationalError if Redis is away.
    """
    client = redis_client.connection
    question = uuid()
    deadline = time.monotonic() + timeout
    # First: where Redis is away, this client gives up sooner than Celery's.
    client.set(ASKED.format(question), 1, px=max(1, int(timeout * 1000)))
    # A connection of its own: those who shared a pool would wait for each other.
    with celery_app().connection_for_write() as connection:
        broadcast(connection, question, questions, only)
    answers: dict[str, dict[str, Any]] = {}
    waiting_for = set(expected)
    while (left := deadline - time.monotonic()) > 0:
        answer = client.blpop([ANSWERS.format(question)], timeout=max(0.01, min(left, ONE_LOOK)))
        if answer is not None:
            name, said = loads(answer[1])  # type: ignore[no-untyped-call]
            answers[name] = said
            waiting_for.discard(name)
            if expected and not waiting_for:
                break
    client.delete(ASKED.format(question), ANSWERS.format(question))
    return answers


def broadcast(connection: Any, question: str, questions: Questions, only: Collection[str] | None) -> None:
    """Send the questions to all workers, or `only` to some, on a connection to the broker."""
    conf = celery_app().conf
    mailbox = Mailbox(  # type: ignore[no-untyped-call]
        conf.control_exchange,
        type="fanout",
        connection=connection,
        accept=conf.accept_content,
        serializer=conf.task_serializer,
    )
    arguments = {"question": question, "asked": {name: dict(asked) for name, asked in questions.items()}}
    if only is None:
        mailbox.abcast("answer", arguments)  # type: ignore[no-untyped-call]
    else:
        mailbox.cast(list(only), "answer", arguments)  # type: ignore[no-untyped-call]


@control_command(visible=False)
def answer(state: Any, question: str, asked: Questions) -> None:
    """Run each command as if it had come alone, and reply once, in the worker."""
    client = state.app.flask_app.extensions["redis"]
    try:
        if not client.exists(ASKED.format(question)):
            logger.info("nobody waits any more for the answer to: %s", ", ".join(asked))
            return
        said = {name: _obey(state, name, arguments) for name, arguments in asked.items()}
        with client.pipeline() as pipe:
            pipe.rpush(ANSWERS.format(question), dumps([state.hostname, said]))  # type: ignore[no-untyped-call]
            pipe.expire(ANSWERS.format(question), ANSWERS_KEPT)
            pipe.execute()
    except RedisError as error:
        logger.warning("could not answer to %s: %s", ", ".join(asked), error)


@control_command(visible=False)
def end(state: Any) -> dict[str, str]:
    """As on SIGTERM: let tasks end for WORKER_STOP_TIMEOUT seconds, while Celery's `shutdown` waits for ever."""
    os.kill(os.getpid(), signal.SIGTERM)
    return {"ok": "ends"}


@control_command(visible=False)
def end_processes(state: Any, n: int) -> dict[str, str]:
    """As Celery's `pool_shrink`, but one process stays; what `stats` tells of them lags behind."""
    has = state.consumer.pool.num_processes
    if n >= has:
        processes = "1 process" if has == 1 else f"{has} processes"
        return {"refused": f"has {processes}, and at least one must stay; to end it, use shutdown."}
    told: dict[str, str] = Panel.data["pool_shrink"](state, n=n)
    return told


@control_command(visible=False)
def replace_processes(state: Any) -> dict[str, str]:
    """As Celery's `pool_restart`, which wakes only one of the processes that wait for something to do, to end it."""
    consumer = state.consumer
    consumer.controller.reload()
    for _ in range(consumer.pool.num_processes - 1):
        consumer.pool.on_apply(noop)
    return {"ok": "each ends once it has nothing to do"}


def _obey(state: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    try:
        return Panel.data[name](state, **arguments)
    except Exception as error:
        logger.warning("could not %s", name, exc_info=error)
        return {"error": str(error) or repr(error)}


class _Answered(Exception):
    """A worker has answered."""


class _ProcessMailbox(Mailbox):
    """A mailbox whose answers come to the same queue each time; whatever came late is gone with the next call."""

    @property
    def oid(self) -> str:
        """The name of that queue."""
        return f"ping-{socket.gethostname()}-{os.getpid()}"


def any_worker_answers(app: Celery, timeout: float) -> bool:
    """Return whether a worker answers within `timeout` seconds. Returns with the first answer.

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
