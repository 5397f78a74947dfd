"""Makes the Celery app from the Flask app: its settings, the Task base class, what a worker does around a task."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from datetime import datetime, timedelta
from typing import Any

from celery import Celery, current_app
from celery import Task as CeleryTask
from celery.exceptions import Ignore, Reject
from celery.signals import setup_logging, worker_process_init, worker_shutting_down
from celery.worker.request import Request
from flask import Flask
from flask_babel import force_locale
from kombu import Exchange, Queue

from microblog import logs
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.claim import (
    AlreadyFinished,
    CancelRequested,
    Claim,
    TooManyCrashes,
    claim,
    hand_back,
    release,
)
from microblog.taskqueue.errors import Cancelled, ClaimRefused, WorkerDied
from microblog.taskqueue.lease import LeaseKeeper
from microblog.taskqueue.rows import DatabaseAway, Rows

logger = logging.getLogger(__name__)

QUEUES = ("exports", "mail", "default")
EXCHANGE = Exchange("microblog", type="direct")
DATABASE_AWAY_PAUSE = 1.0  # seconds before a message that could not be claimed goes back to its queue


class CeleryApp(Celery):
    """A Celery app that knows its Flask app, and the Task table."""

    def __init__(self, flask_app: Flask, **options: Any) -> None:
        super().__init__(flask_app.name, task_cls=JobTask, **options)
        self.flask_app = flask_app
        with flask_app.app_context():
            self.rows = Rows(db.engine)


class JobRequest(Request):
    """A message in the worker's main process."""

    def reject(self, requeue: bool = False) -> None:
        """Give the message back. The process that ran it is gone, so whoever gets it next may claim it at once."""
        if requeue:
            with contextlib.suppress(DatabaseAway):  # the lease then runs out by itself
                release(self.app.rows, self.id, worker=self.hostname)
        super().reject(requeue=requeue)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Stop running the task, since the worker must end; its message goes back to the broker with the worker."""
        super().cancel(pool, signal, emit_retry)
        with contextlib.suppress(DatabaseAway):
            hand_back(self.app.rows, self.id, worker=self.hostname)


class JobTask(CeleryTask):
    """The base of every task: claimed before it runs, run in an app context and in its user's language.

    `title` is the step's description where none is given; `followed_by` names the tasks chained behind this one
    whenever it is launched as a job, each called with the result of the one before.
    """

    Request = "microblog.taskqueue.celery:JobRequest"
    title: Any = ""
    followed_by: tuple[str, ...] = ()

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Claim the task. Raises ClaimRefused if this message must not run, Reject if the database is away."""
        try:
            self.request.claim = held = self._claim(task_id)
            if held is not None and held.attempt > 1 and self.backend.copy_outcome(task_id):
                raise AlreadyFinished(f"{task_id} finished in an earlier attempt")
        except ClaimRefused as refusal:
            logger.info("not run: %s", refusal)
            if isinstance(refusal, CancelRequested):
                self.backend.mark_as_revoked(task_id, "cancelled", request=self.request)
            elif isinstance(refusal, TooManyCrashes):
                self.backend.mark_as_failure(task_id, WorkerDied("too many crashes"), request=self.request)
            raise
        except DatabaseAway as error:
            time.sleep(DATABASE_AWAY_PAUSE)
            raise Reject(error, requeue=True) from error
        if held is not None:
            self.update_state(state=states.STARTED, meta={"pid": os.getpid(), "hostname": self.request.hostname})

    def _claim(self, task_id: str) -> Claim | None:
        config = self.app.flask_app.config
        return claim(
            self.app.rows,
            task_id,
            worker=self.request.hostname,
            lease=config["TASK_LEASE"],
            max_crashes=config["TASK_MAX_CRASHES"],
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task. A cancellation that it hears ends it, and the steps behind it, as REVOKED."""
        app: Flask = self.app.flask_app
        locale = self.request.get("locale") or app.config["BABEL_DEFAULT_LOCALE"]
        with app.app_context(), force_locale(locale):
            try:
                return self.run(*args, **kwargs)
            except Cancelled:
                self.backend.mark_as_revoked(self.request.id, "cancelled", request=self.request)
                self.send_event("task-revoked", terminated=False, signum=None, expired=False)
                raise Ignore("cancelled") from None

    def retry(self, *args: Any, eta: datetime | None = None, countdown: float | None = None, **options: Any) -> Any:
        """As Celery's, and the row tells when the next attempt is due."""
        if eta is None and countdown is None:
            countdown = self.default_retry_delay
        self.request.retry_at = eta or utcnow() + timedelta(seconds=countdown or 0)
        return super().retry(*args, eta=eta, countdown=countdown, **options)


def make_celery(flask_app: Flask, rooms: list[str]) -> CeleryApp:
    """The Celery app of `flask_app`, finding tasks in the ``tasks`` module of each of `rooms` (package names).

    It is kept in ``flask_app.extensions["celery"]`` and becomes the default app.
    """
    app = CeleryApp(flask_app)
    app.config_from_object(celery_settings(flask_app.config))
    app.autodiscover_tasks(rooms, force=True)  # now: the web launches tasks by name, too
    app.steps["worker"].add(LeaseKeeper)
    worker_process_init.connect(lambda **_: app.rows.forget_connections(), weak=False)
    worker_shutting_down.connect(_end_in_time, weak=False)
    setup_logging.connect(lambda **_: logs.configure(flask_app.config["LOG_LEVEL"]), weak=False)
    app.set_default()
    flask_app.extensions["celery"] = app
    return app


def _end_in_time(how: str, **_: Any) -> None:
    """A worker told to stop (SIGTERM) lets its tasks end for WORKER_STOP_TIMEOUT seconds, then hands them back."""
    if how == "Warm":
        timeout = current_app.flask_app.config["WORKER_STOP_TIMEOUT"]
        timer = threading.Timer(timeout, os.kill, (os.getpid(), signal.SIGQUIT))
        timer.daemon = True
        timer.start()


def celery_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Celery's settings, chosen for Redis and for tasks that are claimed before they run."""
    redis_url, timeout = config["REDIS_URL"], config["REDIS_TIMEOUT"]
    return {
        "broker_url": redis_url,
        "result_backend": f"microblog.taskqueue.mirror:MirrorBackend+{redis_url}",
        # JSON only: a message that reaches the broker from elsewhere can at worst be refused.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "timezone": "UTC",
        # A message is acknowledged when its task has ended, so a worker that dies loses none; what it was running
        # goes back at once when a child died, and by reconcile when all of it did. The claim drops duplicates.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # One message per process: none waits behind a long export while another worker idles.
        "worker_prefetch_multiplier": 1,
        "task_soft_time_limit": config["TASK_SOFT_TIME_LIMIT"],
        "task_time_limit": config["TASK_TIME_LIMIT"],
        # Redis hands a message out again after this many seconds without an acknowledgement. It must outlast every
        # task, or long ones would be delivered twice; lost ones need not wait for it, their leases run out first.
        "broker_transport_options": {
            "visibility_timeout": config["TASK_TIME_LIMIT"] + 600,
            "socket_connect_timeout": timeout,
            # Above kombu's own blocking read of one second.
            "socket_timeout": timeout + 1,
            "socket_keepalive": True,
        },
        # A launch that finds the broker away leaves the row unpublished instead of making its reader wait.
        "task_publish_retry": False,
        "broker_connection_timeout": timeout,
        "broker_connection_retry_on_startup": True,
        # Late acknowledgements that fail with the connection are harmless (the claim drops the duplicate), so work
        # under way goes on through a broker's restart.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # An outcome waits in the worker until Redis takes it; progress does not (mirror.py).
        "result_backend_always_retry": True,
        "result_backend_max_sleep_between_retries_ms": 2000,
        "result_backend_transport_options": {"retry_policy": {"max_retries": 0}},
        "redis_socket_connect_timeout": timeout,
        "redis_socket_timeout": timeout,
        "redis_socket_keepalive": True,
        "result_expires": config["RESULT_EXPIRES"],
        "result_extended": True,
        # The claim stores STARTED; Celery's own would come before it, and for messages that must not run.
        "task_track_started": False,
        "task_queues": [Queue(name, EXCHANGE, routing_key=name) for name in QUEUES],
        "task_default_queue": "default",
        "task_routes": {"export_*": {"queue": "exports"}, "email_*": {"queue": "mail"}},
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "beat_scheduler": "redbeat.RedBeatScheduler",
        "redbeat_redis_url": redis_url,
        "redbeat_key_prefix": "microblog:redbeat:",
        # A second beat waits for the lock; the lock of a beat that died is free after this many seconds.
        "redbeat_lock_timeout": 15,
        "beat_max_loop_interval": 3,
        "redbeat_redis_options": {"retry_period": -1},
        "beat_schedule": {
            "reconcile": {
                "task": "reconcile",
                "schedule": config["RECONCILE_INTERVAL"],
                # One that could not run in time is worthless: the next is on its way.
                "options": {"expires": config["RECONCILE_INTERVAL"] * 2},
            },
            "sweep_archives": {"task": "sweep_archives", "schedule": config["EXPORT_SWEEP_INTERVAL"]},
        },
    }
