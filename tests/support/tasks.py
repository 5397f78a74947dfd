"""Tasks that end in every way a task can end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import shared_task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from microblog.extensions import db
from microblog.taskqueue.errors import JobError, UserError
from microblog.taskqueue.interface import Progress
from microblog.taskqueue.worker import JobTask


@shared_task(name="noop", title="Nothing")
def noop(*args: Any) -> None:
    return None


@shared_task(name="add")
def add(left: int, right: int) -> int:
    return left + right


@shared_task(name="echo", runnable=True)
def echo(*args: Any, name: str = "") -> dict[str, Any]:
    """Return the arguments."""
    return {"args": list(args), "name": name}


@shared_task(name="record")
def record(*args: Any) -> dict[str, Any]:
    """Append a line to the file named by the last argument, so that a test can count the runs."""
    with Path(args[-1]).open("a") as file:
        file.write("ran\n")
    return {"received": list(args[:-1])}


@shared_task(name="fail")
def fail(*args: Any) -> None:
    raise RuntimeError("secret detail")


@shared_task(name="fail_politely")
def fail_politely(*args: Any) -> None:
    raise JobError("The moon is in the wrong house.")


@shared_task(name="refuse")
def refuse() -> None:
    raise UserError("The file is no picture.")


@shared_task(name="flaky", bind=True, max_retries=5)
def flaky(self: JobTask, failures: int) -> str:
    if self.request.retries < failures:
        raise self.retry(countdown=0, exc=OSError("not yet"))
    return "at last"


@shared_task(name="too_slow", soft_time_limit=1, time_limit=30)
def too_slow() -> None:
    time.sleep(20)


@shared_task(name="ignore_soft_limit", soft_time_limit=1, time_limit=2)
def ignore_soft_limit() -> None:
    try:
        time.sleep(20)
    except SoftTimeLimitExceeded:
        time.sleep(20)


@shared_task(name="count", bind=True)
def count(self: JobTask, release_file: str, total: int = 1_000_000) -> int:
    """Report progress until the file `release_file` exists, so that a test can act meanwhile; then finish at once."""
    with Progress(self, total) as progress:
        while not Path(release_file).exists():
            time.sleep(0.01)
            progress.advance(0)
        progress.advance(total)
    return total


@shared_task(name="wait_for_file")
def wait_for_file(release_file: str) -> str:
    """Wait for the file `release_file` without reporting progress."""
    while not Path(release_file).exists():
        time.sleep(0.01)
    return "through"


@shared_task(name="retry_behind", bind=True)
def retry_behind(self: JobTask, release_file: str, countdown: float = 0) -> str:
    """Wait for the file `release_file` in the first attempt, then request a retry after `countdown` seconds."""
    if self.attempt == 1:
        wait_for_file.run(release_file)
        raise self.retry(countdown=countdown, exc=OSError("not yet"))
    return "at last"


@shared_task(name="kill_itself", bind=True)
def kill_itself(self: JobTask, record_file: str, times: int) -> str:
    """Kill its own process in the first `times` runs."""
    path = Path(record_file)
    with path.open("a") as file:
        file.write("ran\n")
    if len(path.read_text().splitlines()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@shared_task(name="identify_process", bind=True)
def identify_process(self: JobTask, folder: str) -> dict[str, Any]:
    """Wait until two processes run this task, then return the ids of this process and its connections."""
    (Path(folder) / str(os.getpid())).touch()
    while len(list(Path(folder).iterdir())) < 2:
        time.sleep(0.01)
    on_postgres = db.engine.dialect.name == "postgresql"
    return {
        "process": os.getpid(),
        "redis": self.backend.client.client_id(),
        "database": db.session.scalar(sa.text("SELECT pg_backend_pid()")) if on_postgres else os.getpid(),
    }


@shared_task(name="ignore_cancellation")
def ignore_cancellation(record_file: str, release_file: str) -> None:
    """Wait for the file `release_file` without reporting progress, and so without noticing a cancellation."""
    with Path(record_file).open("a") as file:
        file.write("ran\n")
    while not Path(release_file).exists():
        time.sleep(0.01)


@shared_task(name="end_with", bind=True)
def end_with(self: JobTask, how: str) -> str:
    """End as `how` says: in a way that is not a return or an error."""
    match how:
        case "ignore":
            raise Ignore
        case "reject":
            raise Reject("not now", requeue=True)
        case "replace":
            raise self.replace(noop.s())
        case "stored":
            self.update_state(state="FAILURE", meta=JobError("Stored by hand."))
            raise Ignore
    raise AssertionError(how)


@shared_task(name="announce_states", bind=True)
def announce_states(self: JobTask, release_file: str) -> str:
    """Store progress without a dict and a state with a name of its own, then wait for the file `release_file`."""
    self.update_state(state="PROGRESS", meta=None)
    self.update_state(state="PARSING", meta={"current": 1, "total": 4})
    return str(wait_for_file.run(release_file))


@shared_task(name="call_itself", bind=True)
def call_itself(self: JobTask, depth: int) -> int:
    """Call this task directly `depth` times, as any function."""
    return self(depth - 1) + 1 if depth else 0


@shared_task(name="no_result", ignore_result=True)
def no_result() -> str:
    return "ignored by Celery"
