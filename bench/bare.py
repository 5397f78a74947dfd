"""`celery -A bench.bare`: bare Celery, with the settings of Microblog but without its task engine."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from config import load_settings
from microblog.taskqueue.celery_settings import celery_settings

QUEUE = "bare"
#: The settings that determine Celery's work for one task. The others concern faults, or beat.
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
    """Return a Celery app on the Redis of `config`, with the default task class and result backend, and one task."""
    settings = celery_settings(config)
    bare = Celery("bare", set_as_current=False)
    bare.conf.update({name: settings[name] for name in SHARED})
    # Microblog's claim stores STARTED; here Celery does.
    bare.conf.update(result_backend=config["REDIS_URL"], task_track_started=True)
    bare.conf.update(task_queues=[Queue(QUEUE)], task_default_queue=QUEUE)
    bare.task(noop, name="bare_noop")
    return bare


def noop(*args: Any) -> None:
    """Do nothing."""


def __getattr__(name: str) -> Celery:
    """Return `app`, for the worker only; code that imports make_bare() passes its own configuration."""
    if name != "app":
        raise AttributeError(name)
    return make_bare(load_settings())
