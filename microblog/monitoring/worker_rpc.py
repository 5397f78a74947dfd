"""Remote control of workers: several commands in one broadcast, and the reply of each worker.

Celery's ``inspect`` sends one command at a time, waits its whole timeout even if all workers have replied, and leaves
late replies in Redis permanently. Here one broadcast carries all commands; replies go to a Redis list of this request,
which expires; and a worker that receives the request after the caller gave up ignores it.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Collection, Mapping
from typing import Any

from celery.utils.functional import noop
from celery.worker.control import Panel, control_command
from kombu.pidbox import Mailbox
from kombu.utils.json import dumps, loads
from kombu.utils.uuid import uuid
from redis.exceptions import RedisError

from microblog.extensions import SiteRedis, redis_client
from microblog.taskqueue.interface import celery_app

logger = logging.getLogger(__name__)

Commands = Mapping[str, Mapping[str, Any]]  # Celery's remote control commands, each with its arguments

REQUEST_KEY = "rpc:request:{}"  # exists in Redis while the caller waits for replies
REPLIES_KEY = "rpc:replies:{}"
REPLIES_EXPIRE = 60  # seconds until replies that were not read expire
READ_TIMEOUT = 0.5  # seconds of one blocking read; shorter than any socket timeout


def broadcast_and_collect(
    commands: Commands, timeout: float, *, expected: Collection[str] | None, only: Collection[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Send commands to all workers, or to those in `only`; returns the replies by worker and command.

    Returns as soon as all `expected` workers have replied (None: any worker), otherwise after `timeout` seconds. The
    reply to a command that failed is ``{"error": …}``. Raises redis.exceptions.RedisError or
    kombu.exceptions.OperationalError if Redis is unavailable.
    """
    client = redis_client.connection
    request_id = uuid()
    request_key, replies_key = (client.key(key.format(request_id)) for key in (REQUEST_KEY, REPLIES_KEY))
    deadline = time.monotonic() + timeout
    # Before the broadcast: if Redis is unavailable, this client times out sooner than Celery's.
    client.set(request_key, 1, px=max(1, int(timeout * 1000)))
    # A separate connection, since callers that share a pool would wait for each other.
    with celery_app().connection_for_write() as connection:
        broadcast(connection, request_id, commands, only)
    replies: dict[str, dict[str, Any]] = {}
    while (remaining := deadline - time.monotonic()) > 0:
        reply = client.blpop([replies_key], timeout=max(0.01, min(remaining, READ_TIMEOUT)))
        if reply is not None:
            name, results = loads(reply[1])  # type: ignore[no-untyped-call]
            replies[name] = results
            if expected is None or (expected and replies.keys() >= set(expected)):
                break
    if expected is not None:  # otherwise other workers may still reply, and the keys expire
        client.delete(request_key, replies_key)
    return replies


def broadcast(connection: Any, request_id: str, commands: Commands, only: Collection[str] | None) -> None:
    """Send the commands to all workers, or to those in `only`, on a connection to the broker."""
    conf = celery_app().conf
    mailbox = Mailbox(  # type: ignore[no-untyped-call]
        conf.control_exchange,
        type="fanout",
        connection=connection,
        accept=conf.accept_content,
        serializer=conf.task_serializer,
    )
    arguments = {"request_id": request_id, "commands": {name: dict(each) for name, each in commands.items()}}
    if only is None:
        mailbox.abcast("run_commands", arguments)  # type: ignore[no-untyped-call]
    else:
        mailbox.cast(list(only), "run_commands", arguments)  # type: ignore[no-untyped-call]


@control_command(visible=False)
def run_commands(state: Any, request_id: str, commands: Commands) -> None:
    """Run each command as if it had been sent separately, and send one reply; runs in the worker."""
    client: SiteRedis = state.app.flask_app.extensions["redis"]
    try:
        if not client.exists(client.key(REQUEST_KEY.format(request_id))):
            logger.info("the caller no longer waits; these commands are not run: %s", ", ".join(commands))
            return
        results = {name: _run_command(state, name, arguments) for name, arguments in commands.items()}
        replies = client.key(REPLIES_KEY.format(request_id))
        with client.pipeline() as pipe:
            pipe.rpush(replies, dumps([state.hostname, results]))  # type: ignore[no-untyped-call]
            pipe.expire(replies, REPLIES_EXPIRE)
            pipe.execute()
    except RedisError as error:
        logger.warning("Redis is unavailable; the reply to %s is not sent: %s", ", ".join(commands), error)


@control_command(visible=False)
def utc_seconds(state: Any) -> float:
    """Return the seconds since 1970 by the clock of this machine."""
    return time.time()


@control_command(visible=False)
def end(state: Any) -> dict[str, str]:
    """Shut down as on SIGTERM: tasks have WORKER_STOP_TIMEOUT seconds to end; Celery's `shutdown` waits forever."""
    os.kill(os.getpid(), signal.SIGTERM)
    return {"ok": "shutting down"}


@control_command(visible=False)
def end_processes(state: Any, n: int) -> dict[str, str]:
    """As Celery's `pool_shrink`, but keeps at least one process. Does not use `stats`, whose numbers lag behind."""
    size = state.consumer.pool.num_processes
    if n >= size:
        processes = "1 process" if size == 1 else f"{size} processes"
        return {"refused": f"has {processes}, and at least one must stay; to end it, use shutdown."}
    reply: dict[str, str] = Panel.data["pool_shrink"](state, n=n)
    return reply


@control_command(visible=False)
def replace_processes(state: Any) -> dict[str, str]:
    """As Celery's `pool_restart`, but wakes all idle processes so that they end; Celery's wakes only one of them."""
    consumer = state.consumer
    consumer.controller.reload()
    for _ in range(consumer.pool.num_processes - 1):
        consumer.pool.on_apply(noop)
    return {"ok": "each process ends once it is idle"}


def _run_command(state: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    if name not in Panel.data:  # the caller belongs to a newer release
        return {"error": "unknown command"}
    try:
        return Panel.data[name](state, **arguments)
    except Exception as error:
        logger.warning("the remote control command %s failed; its caller receives the error", name, exc_info=error)
        return {"error": str(error) or repr(error)}
