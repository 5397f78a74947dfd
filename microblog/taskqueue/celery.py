"""Makes the Celery app from the Flask app: the base of all tasks, and what a worker does around a task."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from datetime import datetime, timedelta
from typing import Any

from billiard.exceptions import WorkerLostError
from celery import Celery, current_app
from celery import Task as CeleryTask
from celery.exceptions import Ignore, Reject
from celery.signals import setup_logging, worker_process_init, worker_shutting_down
from celery.worker.request import Request
from flask import Flask
from flask_babel import force_locale
from kombu.exceptions import OperationalError as BrokerAway
from redis.exceptions import RedisError

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
from microblog.taskqueue.pause import HeedPauses
from microblog.taskqueue.rows import DatabaseAway, Rows
from microblog.taskqueue.settings import celery_settings

logger = logging.getLogger(__name__)

DATABASE_AWAY_PAUSE = 1.0  # seconds before a message that could not be claimed goes back to its queue


class CeleryApp(Celery):
    """A Celery app that knows its Flask app, and the Task table."""

    def __init__(self, flask_app: Flask, **options: Any) -> None:
        super().__init__(flask_app.name, task_cls=JobTask, **options)
        self.flask_app = flask_app
        with flask_app.app_context():
            self.rows = Rows(db.engine, flask_app.config["SQLALCHEMY_ENGINE_OPTIONS"]["connect_args"])


class JobRequest(Request):
    """A message in the worker's main process."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """As Celery's; a task whose process died may be claimed again at once."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it with its traceback
        if isinstance(error, (WorkerLostError, SystemExit, KeyboardInterrupt)):
            with contextlib.suppress(DatabaseAway):  # the lease then runs out by itself
                release(self.app.rows, self.id, worker=self.hostname)
        super().on_failure(exc_info, *args, **kwargs)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Stop running the task, since the worker must end; its message goes back to the broker with the worker."""
        super().cancel(pool, signal, emit_retry)
        with contextlib.suppress(DatabaseAway):
            hand_back(self.app.rows, self.id, worker=self.hostname)


class JobTask(CeleryTask):
    """The base of every task: claimed before it runs, run in an app context and in its user's language.

    `title` is the step's description where none is given; `followed_by` names the tasks chained behind this one
    whenever it is launched as a job, each called with the result of the one before. A task that is `runnable` may be
    launched by an operator, by hand.
    """

    Request = "microblog.taskqueue.celery:JobRequest"
    title: Any = ""
    followed_by: tuple[str, ...] = ()
    runnable = False

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Claim the task. Raises ClaimRefused if this message must not run, Reject if the database is away."""
        try:
            self.request.claim = held = self._claim(task_id)
            if held is not None and held.attempt > 1:
                self._look_back(task_id)
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

    def _look_back(self, task_id: str) -> None:
        """Bring home an outcome that an earlier attempt stored in Redis, and raise AlreadyFinished if there is one."""
        with contextlib.suppress(RedisError):  # what cannot be asked now is done again, to the same end
            if self.backend.copy_outcome(task_id):
                raise AlreadyFinished(f"{task_id} finished in an earlier attempt")

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
            finally:
                # Flask would do this next, and an error of a connection that was cut would take the outcome's place.
                with contextlib.suppress(DatabaseAway):
                    db.session.remove()

    def apply_async(self, *args: Any, task_id: str | None = None, **options: Any) -> Any:
        """As Celery's; but what a task publishes as it ends, with the broker away, is left to reconcile.

        That is the step behind it, or its own retry. Celery would call the task, which has done its work, a failure.
        """
        try:
            return super().apply_async(*args, task_id=task_id, **options)
        except BrokerAway:
            ending = self.app.current_worker_task
            if ending is None or getattr(ending.request, "claim", None) is None:
                raise
            following = ending.request.chain
            if following and following[-1]["options"].get("task_id") == task_id:
                ending.request.chain = None  # by which the mirror sees that it was not published
            elif ending.request.id != task_id:
                raise
            logger.warning("the broker is away; %s is published later", task_id)
            return self.AsyncResult(task_id)

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
    app.steps["consumer"].add(HeedPauses)
    worker_process_init.connect(lambda **_: _leave_connections_to_parent(app), weak=False)
    worker_shutting_down.connect(_end_in_time, weak=False)
    setup_logging.connect(lambda **_: logs.configure(flask_app.config["LOG_LEVEL"]), weak=False)
    app.set_default()
    flask_app.extensions["celery"] = app
    return app


def _leave_connections_to_parent(app: CeleryApp) -> None:
    """What a worker's child does first: connections that were open when it was forked are its parent's."""
    app.rows.forget_connections()
    with app.flask_app.app_context():
        db.engine.dispose(close=False)


def _end_in_time(how: str, **_: Any) -> None:
    """A worker told to stop (SIGTERM) lets its tasks end for WORKER_STOP_TIMEOUT seconds, then hands them back."""
    if how == "Warm":
        timeout = current_app.flask_app.config["WORKER_STOP_TIMEOUT"]
        timer = threading.Timer(timeout, os.kill, (os.getpid(), signal.SIGQUIT))
        timer.daemon = True
        timer.start()
