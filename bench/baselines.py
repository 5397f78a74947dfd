"""Two Celery applications without Microblog's task engine, with which it is compared.

`celery -A bench.baselines:tuned` has Microblog's settings; `celery -A bench.baselines:default` has Celery's own, as
users of Celery write it.
"""

from __future__ import annotations

import os
import smtplib
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from celery import Celery, Task
from kombu import Queue

from bench.task_log import TaskLog
from config import load_settings
from microblog.taskqueue.celery_settings import celery_settings

TUNED, DEFAULT = "bench.baselines:tuned", "bench.baselines:default"
TUNED_QUEUE = "tuned"
#: The environment variable that makes a worker of the application with default settings acknowledge late.
ACKS_LATE = "DEFAULT_ACKS_LATE"
SENDER = "celery@example.com"
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


def make_tuned(config: dict[str, Any]) -> Celery:
    """Return a Celery app on the Redis of `config`, with the default task class and result backend, and one task."""
    settings = celery_settings(config)
    tuned = Celery("tuned", set_as_current=False)
    tuned.conf.update({name: settings[name] for name in SHARED})
    # Microblog's claim stores STARTED; here Celery does.
    tuned.conf.update(result_backend=config["REDIS_URL"], task_track_started=True)
    tuned.conf.update(task_queues=[Queue(TUNED_QUEUE)], task_default_queue=TUNED_QUEUE)
    tuned.task(noop, name="tuned_noop")
    return tuned


def noop(*args: Any) -> None:
    """Do nothing."""


def make_default(redis_url: str, *, acks_late: bool) -> Celery:
    """Return a Celery app with default settings; with `acks_late`, with the two settings that prevent lost tasks."""
    default = Celery("default", broker=redis_url, backend=redis_url, set_as_current=False)
    if acks_late:
        default.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)
    default.task(work, name="default_work", bind=True)
    default.task(send_mail, name="default_mail", autoretry_for=(OSError,), retry_backoff=True)
    return default


def work(self: Task, log: str, seconds: float) -> None:
    """Work for `seconds`."""
    TaskLog(Path(log)).work(self.request.id, seconds)


def send_mail(port: int, recipient: str) -> None:
    """Send a short mail to the local SMTP server at `port`."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, recipient, "Your blog posts"
    message.set_content("Here they are.")
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as server:
        server.send_message(message)


def __getattr__(name: str) -> Celery:
    """Return `tuned` or `default`, for workers only; other code passes its own configuration to the functions."""
    if name == "tuned":
        return make_tuned(load_settings())
    if name == "default":
        return make_default(os.environ["REDIS_URL"], acks_late=ACKS_LATE in os.environ)
    raise AttributeError(name)
