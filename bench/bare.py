"""`celery -A bench.bare`: Celery as it comes, with our settings but without our engine."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from config import load_settings
from microblog.taskqueue.celery_settings import celery_settings

QUEUE = "bare"
#: The settings that decide how much Celery does for one task. The others are about faults, or about beat.
SHARED = (
    "broker_url",
    "task_serializer",
    "result_serializer",
    "accept_content",
    "task_acks_late",
    "task_reject_on_worker_lost",
    "task_soft_time_limit",
    "task_time_limit",
    "worker_prefetch_multiplier",
    "worker_send_task_events",
    "result_extended",
    "result_expires",
)


def make_bare(config: dict[str, Any]) -> Celery:
    """A Celery app on the Redis of `config`, with stock task class and result backend, and one task, `bare_noop`."""
    settings = celery_settings(config)
    bare = Celery("bare", set_as_current=False)
    bare.conf.update({name: settings[name] for name in SHARED})
    # Our claim stores STARTED; here Celery does.
    bare.conf.update(result_backend=config["REDIS_URL"], task_track_started=True)
    bare.conf.update(task_queues=[Queue(QUEUE)], task_default_queue=QUEUE)
    bare.task(noop, name="bare_noop")
    return bare


def noop(*args: Any) -> None:
    """Does nothing."""


def __getattr__(name: str) -> Celery:
    """`app`, for the worker alone: whoever imports make_bare() has a configuration of its own."""
    if name != "app":
        raise AttributeError(name)
    return make_bare(load_settings())
