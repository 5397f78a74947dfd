"""The Celery app made from the Flask app: the base class of tasks, its request class, and renewal of leases."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from billiard.exceptions import WorkerLostError
from celery import Celery, bootsteps, current_app
from celery import Task as CeleryTask
from celery.app.task import Context
from celery.exceptions import BackendStoreError, Ignore, Reject, Retry
from celery.signals import setup_logging, worker_process_init, worker_shutting_down
from celery.worker import state as worker_state
from celery.worker.request import Request
from flask import Flask
from flask_babel import force_locale
from redis.exceptions import RedisError

from microblog import logs
from microblog.clock import utcnow
from microblog.database import AutocommitExecutor, DatabaseUnavailable
from microblog.extensions import db
from microblog.taskqueue import states
from microblog.taskqueue.interface import Cancelled, ClaimRefused, claim_refused
from microblog.taskqueue.queues import PausedQueuesStep
from microblog.taskqueue.transitions import (
    AlreadyFinished,
    claim_task,
    expire_lease,
    release_on_shutdown,
    renew_leases,
)


class RuntimeTimeLimits:
    """A part of the worker's request class, which makes the remote control command ``time_limit`` count."""

    _task: Any
    _sent_limits: tuple[float | None, float | None] = (None, None)

    @property
    def time_limits(self) -> tuple[float | None, float | None]:
        """The hard limit and the soft one, in seconds: as an operator changed them, else as they were sent.

        Each message carries the limits that its task had where it was sent, and for Celery these have precedence: the
        remote control command `time_limit` would change nothing.
        """
        changed = vars(self._task)  # of the instance, that is; those that were written down are the class's
        if "time_limit" in changed:
            return changed["time_limit"], changed["soft_time_limit"]
        return self._sent_limits

    @time_limits.setter
    def time_limits(self, sent: tuple[float | None, float | None]) -> None:
        self._sent_limits = sent


logger = logging.getLogger(__name__)

# Held while a statement runs, and by os.fork(): a child must not inherit a database library's lock as taken.
_fork_lock = threading.Lock()
os.register_at_fork(before=_fork_lock.acquire, after_in_parent=_fork_lock.release, after_in_child=_fork_lock.release)


@contextlib.contextmanager
def stop_renewing(request: Request) -> Iterator[None]:
    """A block in which, and after which, the lease of `request` is not renewed; for whoever gives it back there."""
    with _fork_lock:
        worker_state.active_requests.discard(request)
        yield


def renew_running_leases(worker: Any, known: set[Request]) -> set[Request]:
    """Renew the leases of what `worker` has been running since `known` was; returns all that it is running now.

    What it has only just been given may not have been claimed yet: its row may still bear this worker's name from a
    claim whose process died, and the lease of that must not come to life again.
    """
    with _fork_lock:
        running = set(worker_state.active_requests)
        ids = [request.id for request in running & known]
        renew_leases(worker.app.rows, ids, worker.hostname, lease=worker.app.flask_app.config["TASK_LEASE"])
    return running


class LeaseRenewer(bootsteps.StartStopStep):
    """Renews, four times a lease, the leases of the tasks that this worker is running, in one UPDATE.

    It lives in the main process, so that a task busy in C code keeps its lease and a worker that was killed or
    frozen loses it; and in a thread, since the main loop stands still while the broker is away.
    """

    def start(self, worker: Any) -> None:
        """Begin to renew; the thread ends with the process, since a worker that was told to stop still runs tasks."""
        threading.Thread(target=self._run, args=(worker,), name="lease-keeper", daemon=True).start()

    def _run(self, worker: Any) -> None:
        known: set[Request] = set()
        while True:
            time.sleep(worker.app.flask_app.config["TASK_LEASE"] / 4)
            try:
                known = renew_running_leases(worker, known)
            except Exception:  # whatever it is, such as a database that is away: the next turn may do better
                logger.warning("leases are not renewed", exc_info=True)


DATABASE_AWAY_PAUSE = 1.0  # seconds before a message that could not be claimed goes back to its queue


class CeleryApp(Celery):
    """A Celery app that knows its Flask app, and the Task table."""

    def __init__(self, flask_app: Flask, **options: Any) -> None:
        super().__init__(flask_app.name, task_cls=JobTask, **options)
        self.flask_app = flask_app
        with flask_app.app_context():
            self.rows = AutocommitExecutor(db.engine, flask_app.config["SQLALCHEMY_ENGINE_OPTIONS"]["connect_args"])


class JobRequest(RuntimeTimeLimits, Request):
    """A message in the worker's main process."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """As Celery's; a task whose process died may be claimed again at once."""
        error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it with its traceback
        if isinstance(error, (WorkerLostError, SystemExit, KeyboardInterrupt)):
            with contextlib.suppress(DatabaseUnavailable), stop_renewing(self):  # the lease then runs out by itself
                expire_lease(self.app.rows, self.id, self.hostname)
        super().on_failure(exc_info, *args, **kwargs)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Stop running the task, since the worker must end; its message goes back to the broker with the worker."""
        super().cancel(pool, signal, emit_retry)
        with contextlib.suppress(DatabaseUnavailable), stop_renewing(self):
            release_on_shutdown(self.app.rows, self.id, self.hostname)


class JobTask(CeleryTask):
    """The base of every task: claimed before it runs, run in an app context and in its user's language.

    `title` is the step's description where none is given; `followed_by` names the tasks chained behind this one
    whenever it is launched as a job, each called with the result of the one before. `every` names the setting that
    holds the seconds between two runs by beat. What beat runs an operator may run too, by hand; other tasks if they are
    `runnable`.
    """

    Request = "microblog.taskqueue.worker:JobRequest"
    title: Any = ""
    followed_by: tuple[str, ...] = ()
    every: str = ""
    runnable = False

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Claim the task. Raises ClaimRefused if this message must not run, Reject if the database is away."""
        name, config = self.request.hostname, self.app.flask_app.config
        try:
            self.request.claim = held = claim_task(
                self.app.rows, task_id, name, lease=config["TASK_LEASE"], max_crashes=config["TASK_MAX_CRASHES"]
            )
            if held is not None and held.attempt > 1 and self._recovered(task_id):
                raise AlreadyFinished(f"{task_id} was finished by an earlier attempt")
        except ClaimRefused as refusal:
            logger.info("not run: %s", refusal)
            claim_refused.send(self.app, refusal=refusal)
            if refusal.ending is not None and not self._recovered(task_id):
                with contextlib.suppress(BackendStoreError):  # reconcile ends it once Redis is back
                    self.backend.end(task_id, refusal.ending, self.request)
            raise
        except DatabaseUnavailable as error:
            time.sleep(DATABASE_AWAY_PAUSE)
            raise Reject(error, requeue=True) from error
        if held is not None:
            self.update_state(state=states.STARTED, meta={"pid": os.getpid(), "hostname": name})

    def find_completed_result(self, task_id: str) -> Any:
        """Return the result of an earlier attempt that is known to have completed, else None.

        A task with irreversible work overrides this, so that completed work is never reported as cancelled or failed.
        """
        return None

    def recover_result(self, task_id: str, request: Context | None = None) -> bool:
        """Recover the result of an earlier attempt, from Redis or from find_completed_result().

        Returns whether there was one. Raises redis.exceptions.RedisError, BackendStoreError and DatabaseUnavailable.
        """
        if self.backend.copy_outcome(task_id, request):
            return True
        with self.app.flask_app.app_context():
            done = self.find_completed_result(task_id)
        if done is not None:
            self.backend.store_result(task_id, done, states.SUCCESS, request=request, wait=False)
        return done is not None

    def has_result(self, task_id: str) -> bool:
        """Return whether recover_result() would find one; writes nothing. Raises redis.exceptions.RedisError."""
        with self.app.flask_app.app_context():
            return self.backend.holds_outcome(task_id) or self.find_completed_result(task_id) is not None

    def _recovered(self, task_id: str) -> bool:
        try:
            return self.recover_result(task_id, self.request)
        except (RedisError, BackendStoreError, DatabaseUnavailable):
            return False  # the task runs again, with the same result

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task. A cancellation ends it and the following steps as REVOKED.

        Celery publishes the next step before it stores the task's success. Here the result backend publishes it
        afterwards, so that a step begins only when the previous one is known to have succeeded.
        """
        app: Flask = self.app.flask_app
        locale = self.request.get("locale") or app.config["BABEL_DEFAULT_LOCALE"]
        with app.app_context(), force_locale(locale):
            try:
                result = self.run(*args, **kwargs)
                if getattr(self.request, "claim", None) is not None:
                    self.request.behind, self.request.chain = self.request.chain, None
                return result
            except Cancelled:
                self.backend.mark_as_revoked(self.request.id, "cancelled", request=self.request)
                self.send_event("task-revoked", terminated=False, signum=None, expired=False)
                raise Ignore("cancelled") from None
            finally:
                # Flask would do this next, and an error of a connection that was cut would take the outcome's place.
                with contextlib.suppress(DatabaseUnavailable):
                    db.session.remove()

    def retry(self, *args: Any, eta: datetime | None = None, countdown: float | None = None, **options: Any) -> Any:
        """As Celery's, and the row tells when the next attempt is due; a broker that is away leaves it to reconcile."""
        if eta is None and countdown is None:
            countdown = self.default_retry_delay
        self.request.retry_at = eta or utcnow() + timedelta(seconds=countdown or 0)
        try:
            return super().retry(*args, eta=eta, countdown=countdown, **options)
        except Reject as unpublished:
            if getattr(self.request, "claim", None) is None:
                raise
            logger.warning("the broker is away; %s is published later", self.request.id)
            raise Retry(exc=options.get("exc"), when=eta or countdown) from unpublished


def make_celery(flask_app: Flask, settings: dict[str, Any], packages: list[str]) -> CeleryApp:
    """The Celery app of `flask_app`; its tasks are in the ``tasks`` module of each of `packages`.

    `settings` are Celery's own. The app is kept in ``flask_app.extensions["celery"]`` and becomes the default app.
    """
    app = CeleryApp(flask_app)
    app.config_from_object(settings)
    app.autodiscover_tasks(packages, force=True)  # now: the web launches tasks by name, too
    every = {name: flask_app.config[task.every] for name, task in app.tasks.items() if task.every}
    app.conf.beat_schedule = {  # a run that could not begin in time is worthless: the next is on its way
        name: {"task": name, "schedule": seconds, "options": {"expires": 2 * seconds}}
        for name, seconds in every.items()
    }
    app.steps["worker"].add(LeaseRenewer)
    app.steps["consumer"].add(PausedQueuesStep)
    worker_process_init.connect(lambda **_: _leave_connections_to_parent(app), weak=False)
    worker_shutting_down.connect(_end_in_time, weak=False)
    setup_logging.connect(lambda **_: logs.configure(flask_app.config["LOG_LEVEL"]), weak=False)
    app.set_default()
    flask_app.extensions["celery"] = app
    return app


def _leave_connections_to_parent(app: CeleryApp) -> None:
    """Forget connections that were open when this child process was forked: they are its parent's."""
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
