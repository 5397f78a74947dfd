"""The Celery app made from the Flask app: the base class of tasks, its request class, and renewal of leases."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import Celery, Task, bootsteps, current_app, signals
from celery.app.task import Context
from celery.exceptions import Ignore, Reject
from celery.result import AsyncResult
from celery.utils.time import maybe_make_aware
from celery.worker import state
from celery.worker.request import Request
from celery.worker.state import active_requests
from flask import Flask
from flask_babel import force_locale
from kombu.utils.json import dumps
from sqlalchemy.exc import SQLAlchemyError

from microblog import logs
from microblog.clock import utcnow
from microblog.database import (
    OUTAGE_PAUSE,
    AutocommitExecutor,
    DatabaseUnavailable,
    LogDatabaseErrors,
    check_schema,
    lock_against_fork,
)
from microblog.extensions import REDIS_UNAVAILABLE, db
from microblog.taskqueue import idle_connections, states
from microblog.taskqueue.errors import AlreadyFinished, Cancelled, ClaimLost, ClaimRefused, NoRow, NotClaimed
from microblog.taskqueue.interface import Claim, claim_of, claim_refused
from microblog.taskqueue.queues import PausedQueuesStep, QueueOrderStep
from microblog.taskqueue.reconcile import Reconciler
from microblog.taskqueue.result_backend import DatabaseResultBackend, SentinelResultBackend
from microblog.taskqueue.transitions import check_claim, claim_task, expire_lease, release_on_shutdown, renew_leases

logger = logging.getLogger(__name__)

MAX_CLOCK_DIFFERENCE = 3600.0  # seconds between the clocks of two machines at which periodic tasks still run


class CeleryApp(Celery):
    """A Celery app with its Flask app and access to the Task table.

    `executor` runs the statements of transitions.py. The result backend is DatabaseResultBackend.
    """

    backend: DatabaseResultBackend
    control_cls = "microblog.taskqueue.transport:Control"

    def __init__(self, flask_app: Flask, **options: Any) -> None:
        super().__init__(flask_app.name, task_cls=JobTask, **options)
        self.flask_app = flask_app
        with flask_app.app_context():
            self.executor = AutocommitExecutor(db.engine)


class JobTask(Task):
    """The base of every task: claimed before it runs, run in an app context and in its user's language.

    `title` is the step's description if the launch gives none. `queue_name` is the queue of its messages, if not
    the default one. `interval_setting` names the setting with the seconds between two runs by beat. A task that beat
    runs may also be run by an operator; others if they are `runnable`.
    """

    Request = "microblog.taskqueue.worker:JobRequest"
    title: Any = ""
    queue_name: str | None = None
    interval_setting: str = ""
    runnable = False

    # For tasks

    @property
    def task_id(self) -> str:
        """The id of the current task, which is also the id of its row. Raises LookupError outside a run."""
        return _given(self.request.id)

    @property
    def job_id(self) -> str:
        """The id of the current job's first task. Raises LookupError outside a run."""
        return _given(self.request.root_id)

    @property
    def claim(self) -> Claim | None:
        """The claim of the current run; None outside a run and for a task without a row."""
        return claim_of(self.request)

    @property
    def attempt(self) -> int:
        """The number of the current attempt, from 1; a task without a row counts Celery's retries."""
        return self.claim.attempt if self.claim else self.request.retries + 1

    def check_current(self) -> None:
        """Check in the row that this run is still valid. Raises ClaimLost, Cancelled and DatabaseUnavailable."""
        if self.claim is not None:
            check_claim(self.app.executor, self.claim)

    def find_completed_result(self, task_id: str) -> Any:
        """Return the result of an earlier attempt that is known to have completed, else None.

        A task with irreversible work overrides this, so that completed work is never reported as cancelled or failed.
        """
        return None

    # Called by Celery

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Claim the task.

        Raises ClaimRefused if this message must not run, Reject if the database is unavailable, and NotClaimed.
        """
        try:
            claim = self._claim(task_id)
        except ClaimRefused as refusal:
            logger.info("a message is dropped: %s", refusal)
            claim_refused.send(self.app, refusal=refusal)
            if refusal.final_error is not None and not self._try_recover_result(task_id):
                with contextlib.suppress(*REDIS_UNAVAILABLE, DatabaseUnavailable):  # reconcile ends it later
                    self.backend.end([task_id], refusal.final_error, self.request)
            raise
        except DatabaseUnavailable as error:
            time.sleep(OUTAGE_PAUSE)  # before the message goes back to its queue
            raise Reject(error, requeue=True) from error
        except SQLAlchemyError as error:  # such as a missing column: a requeued message would loop forever
            logger.exception("%s cannot be claimed; reconcile publishes it again", task_id)
            einfo = ExceptionInfo(sys.exc_info())
            about = {"task_id": task_id, "args": args, "kwargs": kwargs, "request": self.request}
            signals.task_internal_error.send(self, exception=error, traceback=error.__traceback__, einfo=einfo, **about)
            raise NotClaimed(task_id) from error  # unlike Reject without requeue, which Celery stores as a failure
        if claim is not None:
            self.update_state(state=states.STARTED, meta={"pid": os.getpid(), "hostname": self.request.hostname})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task. A cancellation ends it and the following steps as REVOKED.

        Celery publishes the next step before it stores the task's success. Here the result backend publishes it
        afterwards, so that a step begins only when the previous one is known to have succeeded. Ignore and Reject would
        leave the row unfinished: unless a final state was stored before, they fail the task.
        """
        app: Flask = self.app.flask_app
        locale = self.request.get("locale") or app.config["BABEL_DEFAULT_LOCALE"]
        with app.app_context(), force_locale(locale):
            try:
                result = self._run(*args, **kwargs)
                if (claim := self.claim) is not None and self.request.chain:  # None after a direct call by the task
                    claim.next_steps, self.request.chain = self.request.chain, None
                return result
            except ClaimLost:
                raise
            except (Ignore, Reject) as ending:
                if self.claim is None or self.claim.ended:
                    raise
                raise RuntimeError(f"a launched task cannot end with {ending!r} without a final state") from ending
            except Cancelled:
                self.backend.mark_as_revoked(self.request.id, "cancelled", request=self.request)
                self.send_event("task-revoked", terminated=False, signum=None, expired=False)
                raise Ignore("cancelled") from None

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task, and return the connection of its session, which stores the state next."""
        try:
            return self.run(*args, **kwargs)
        finally:
            db.session.remove()

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any
    ) -> AsyncResult[Any] | None:
        """As Celery's, except for the retry of the current run, which Celery would publish before it stores RETRY.

        Here the row is stored first, and the message is published when the retry is due: by the result backend if there
        is no pause, else by reconcile. A message that waited in a worker would be due by that machine's clock.
        """
        claim = self.claim
        if claim is None or claim.ended or task_id != claim.task_id:
            return super().apply_async(args, kwargs, task_id=task_id, **options)
        eta, countdown = options.pop("eta", None), options.pop("countdown", None)
        claim.retry_pause = (
            (maybe_make_aware(eta, self.app.timezone) - utcnow()).total_seconds() if eta else countdown or 0.0
        )
        claim.next_steps = options.pop("chain", None) or []
        # Immutable, since its arguments contain the result of the previous step already.
        signature = self.signature(args, kwargs, options | {"task_id": task_id}, immutable=True)
        # As in a message, where kombu encodes times and other values.
        claim.retry = json.loads(dumps(signature))  # type: ignore[no-untyped-call]
        return None

    def replace(self, sig: Any) -> Any:
        """As Celery's. Raises TypeError in a launched task, whose row is of this task and of no other."""
        if self.claim is not None:
            raise TypeError(f"a launched task cannot be replaced by {sig!r}: make that a step of a chain")
        return super().replace(sig)

    # Results of earlier attempts

    def recover_result(self, task_id: str, request: Context | None = None) -> bool:
        """Recover the result of an earlier attempt, from Redis or from find_completed_result().

        Returns whether there was one. Raises redis.exceptions.RedisError, BackendStoreError and DatabaseUnavailable.
        """
        if self.backend.copy_result(task_id, request):
            return True
        with self.app.flask_app.app_context():
            result = self.find_completed_result(task_id)
        if result is not None:
            self.backend.store_result(task_id, result, states.SUCCESS, request=request, wait=False)
        return result is not None

    def has_result(self, task_id: str) -> bool:
        """Return whether recover_result() would find one; writes nothing. Raises redis.exceptions.RedisError."""
        with self.app.flask_app.app_context():
            return self.backend.has_result(task_id) or self.find_completed_result(task_id) is not None

    def _claim(self, task_id: str) -> Claim | None:
        config = self.app.flask_app.config
        claim = claim_task(
            self.app.executor,
            task_id,
            self.request.hostname,
            lease=config["TASK_LEASE"],
            max_crashes=config["TASK_MAX_CRASHES"],
            retries=self.request.retries,
        )
        self.request.claim, self.request.has_no_row = claim, claim is None
        if claim is None and self.request.get("has_row"):
            raise NoRow(f"{task_id} was launched, but has no row")
        if claim is not None and claim.attempt > 1 and self._try_recover_result(task_id):
            raise AlreadyFinished(f"{task_id} was finished by an earlier attempt")
        return claim

    def _try_recover_result(self, task_id: str) -> bool:
        not_recovered = LogDatabaseErrors(logger, "no earlier result of %s is recovered", task_id)
        with contextlib.suppress(*REDIS_UNAVAILABLE), not_recovered:
            return self.recover_result(task_id, self.request)
        return False  # the task runs again, with the same result


def _given(task_id: str | None) -> str:
    if task_id is None:
        raise LookupError("the task is called directly: it has no id")
    return task_id


class JobRequest(Request):
    """A message in the worker's main process."""

    _task: Any
    _sent_limits: tuple[float | None, float | None] = (None, None)

    @property
    def time_limits(self) -> tuple[float | None, float | None]:
        """The hard and the soft limit, in seconds: as an operator changed them, otherwise as they were sent.

        Each message contains the limits of its task in the sending process, and Celery gives these precedence, so that
        the remote control command ``time_limit`` would have no effect.
        """
        changed = vars(self._task)  # of the instance; limits from the code are in the class
        if "time_limit" in changed:
            return changed["time_limit"], changed["soft_time_limit"]
        return self._sent_limits

    @time_limits.setter
    def time_limits(self, sent: tuple[float | None, float | None]) -> None:
        self._sent_limits = sent

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """As Celery's; a task whose process died may be claimed again at once.

        This counts as a crash, except during a shutdown of the worker: systemd, Heroku and shells send the signal to
        the whole process group.
        """
        error = getattr(exc_info.exception, "exc", exc_info.exception)  # billiard wraps it with its traceback
        if isinstance(error, (WorkerLostError, SystemExit, KeyboardInterrupt)):
            stopping = state.should_stop is not None or state.should_terminate is not None
            end_lease = release_on_shutdown if stopping else expire_lease
            with LogDatabaseErrors(logger, "the lease of %s expires by itself", self.id), stop_renewing(self):
                end_lease(self.app.executor, self.id, self.hostname)
        super().on_failure(exc_info, *args, **kwargs)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Stop running the task because the worker ends, which requeues its message. No user has cancelled it."""
        super().cancel(pool, signal or "KILL", emit_retry)  # a process may defer SIGTERM until it has recorded a mail
        with LogDatabaseErrors(logger, "the lease of %s expires by itself", self.id), stop_renewing(self):
            release_on_shutdown(self.app.executor, self.id, self.hostname)


_fork_lock = lock_against_fork()


@contextlib.contextmanager
def stop_renewing(request: Request) -> Iterator[None]:
    """Stop renewing the lease of `request` permanently; the caller ends the lease inside the block.

    LeaseRenewer renews the leases of Celery's `active_requests`, so the request is removed from these.
    """
    with _fork_lock:
        active_requests.discard(request)
        yield


def renew_running_leases(worker: Any, previous: set[Request]) -> set[Request]:
    """Renew the leases of the requests in `previous` that `worker` still runs; returns all that it runs now.

    A new request may not have been claimed yet: its row may still contain the name of this worker from a claim whose
    process died, and that lease must not be renewed.
    """
    with _fork_lock:
        running = set(active_requests)
        ids = [request.id for request in running & previous]
        renew_leases(worker.app.executor, ids, worker.hostname, lease=worker.app.flask_app.config["TASK_LEASE"])
    return running


class LeaseRenewer(bootsteps.StartStopStep):
    """Renews the leases of the tasks that this worker is running, in one UPDATE, four times per lease.

    It runs in the main process, so that a task busy in C code keeps its lease and a worker that was killed or frozen
    loses it; and in a thread, since the main loop blocks while the broker is unavailable. After an outage of the
    database, it does so before other workers reconcile.
    """

    def start(self, worker: Any) -> None:
        """Start the thread. It ends with the process, since a worker that is shutting down still runs tasks."""
        threading.Thread(target=self._run, args=(worker,), name="lease-renewer", daemon=True).start()

    def _run(self, worker: Any) -> None:
        running: set[Request] = set()
        usual = pause = worker.app.flask_app.config["TASK_LEASE"] / 4
        while True:
            time.sleep(pause)
            pause = usual
            try:
                running = renew_running_leases(worker, running)
            except DatabaseUnavailable:
                pause = min(usual, OUTAGE_PAUSE)
                logger.warning("the database is unavailable; the leases of %s are renewed later", worker.hostname)
            except Exception:  # the thread must not end
                logger.exception("the leases of %s cannot be renewed; the next attempt follows", worker.hostname)


def make_celery(flask_app: Flask, settings: dict[str, Any], packages: list[str]) -> CeleryApp:
    """Create the Celery app of `flask_app`; its tasks are in the ``tasks`` module of each of `packages`.

    `settings` are Celery's own. The app is stored in ``flask_app.extensions["celery"]`` and becomes the default app.
    """
    app = CeleryApp(flask_app)
    app.config_from_object(settings)
    backend = SentinelResultBackend if flask_app.config["REDIS_SENTINEL"] else DatabaseResultBackend
    app.conf.result_backend = backend.url(flask_app.config["REDIS_URL"])
    app.autodiscover_tasks(packages, force=True)  # now: the web launches tasks by name, too
    tasks = {name: task for name, task in app.tasks.items() if isinstance(task, JobTask)}
    app.conf.task_routes = {name: {"queue": task.queue_name} for name, task in tasks.items() if task.queue_name}
    periodic = {name: task.interval_setting for name, task in tasks.items() if task.interval_setting}
    app.conf.beat_schedule = {
        name: {
            "task": name,
            "schedule": flask_app.config[setting],
            # A late run is useless, since the next one follows; but the clock of beat may be behind those of workers.
            "options": {"expires": 2 * flask_app.config[setting] + MAX_CLOCK_DIFFERENCE},
        }
        for name, setting in periodic.items()
    }
    app.steps["worker"].update([LeaseRenewer, QueueOrderStep, Reconciler])
    app.steps["consumer"].add(PausedQueuesStep)
    for signal_of_start in (signals.worker_init, signals.beat_init):
        signal_of_start.connect(lambda **_: check_schema(flask_app), weak=False)
    idle_connections.init_app(flask_app)
    signals.worker_shutting_down.connect(_force_shutdown_later, weak=False)
    signals.setup_logging.connect(lambda **_: logs.configure(flask_app.config), weak=False)
    app.set_default()
    flask_app.extensions["celery"] = app
    return app


def _force_shutdown_later(how: str, **_: Any) -> None:
    """On SIGTERM, let the worker's tasks run for WORKER_STOP_TIMEOUT seconds, then release them.

    SIGQUIT is Celery's cold shutdown, which calls JobRequest.cancel() for each running task.
    """
    if how == "Warm":
        timeout = current_app.flask_app.config["WORKER_STOP_TIMEOUT"]
        timer = threading.Timer(timeout, os.kill, (os.getpid(), signal.SIGQUIT))
        timer.daemon = True
        timer.start()
