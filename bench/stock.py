"""`celery -A bench.stock`: a separate application on stock Celery, as users of Celery write it."""

from __future__ import annotations

import os
import smtplib
from email.message import EmailMessage
from pathlib import Path

from celery import Celery
from celery import Task as CeleryTask

from bench.task_log import TaskLog

#: The environment variable that makes a worker acknowledge late.
ACKS_LATE = "STOCK_ACKS_LATE"
SENDER = "stock@example.com"


def make_stock(redis_url: str, *, acks_late: bool) -> Celery:
    """Return a Celery app with default settings; with `acks_late`, with the two settings that prevent lost tasks."""
    stock = Celery("stock", broker=redis_url, backend=redis_url, set_as_current=False)
    if acks_late:
        stock.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)
    stock.task(work, name="stock_work", bind=True)
    stock.task(send_mail, name="stock_mail", autoretry_for=(OSError,), retry_backoff=True)
    return stock


def work(self: CeleryTask, log: str, seconds: float) -> None:
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
    """Return `app`, for the worker only; code that imports make_stock() passes the settings."""
    if name != "app":
        raise AttributeError(name)
    return make_stock(os.environ["REDIS_URL"], acks_late=ACKS_LATE in os.environ)
