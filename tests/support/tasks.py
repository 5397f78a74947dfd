"""Tasks that end in every way a task can end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded

from microblog.extensions import db
from microblog.taskqueue.interface import JobError, Progress
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


@shared_task(name="flaky", bind=True, max_retries=5)
def flaky(self: JobTask, failures: int) -> str:
    if self.request.retries < failures:
        raise self.retry(countdown=0.2, exc=OSError("not yet"))
    return "at last"


@shared_task(name="too_slow", soft_time_limit=1, time_limit=30)
def too_slow() -> None:
    time.sleep(20)


@shared_task(name="deaf", soft_time_limit=1, time_limit=2)
def deaf() -> None:
    try:
        time.sleep(20)
    except SoftTimeLimitExceeded:
        time.sleep(20)


@shared_task(name="count", bind=True)
def count(self: JobTask, gate: str, total: int = 1_000_000) -> int:
    """Report progress until the file `gate` exists, so that a test can act meanwhile; then finish at once."""
    with Progress(self, total) as progress:
        while not Path(gate).exists():
            time.sleep(0.01)
            progress.advance(0)
        progress.advance(total)
    return total


@shared_task(name="stand")
def stand(gate: str) -> str:
    """Wait for the file `gate` without reporting progress."""
    while not Path(gate).exists():
        time.sleep(0.01)
    return "through"


@shared_task(name="retry_behind", bind=True)
def retry_behind(self: JobTask, gate: str) -> str:
    """Wait for the file `gate` in the first attempt, then request a retry."""
    if self.attempt == 1:
        stand.run(gate)
        raise self.retry(countdown=0, exc=OSError("not yet"))
    return "at last"


@shared_task(name="die", bind=True)
def die(self: JobTask, record_file: str, times: int) -> str:
    """Kill its own process in the first `times` runs."""
    path = Path(record_file)
    with path.open("a") as file:
        file.write("ran\n")
    if len(path.read_text().splitlines()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@shared_task(name="introduce", bind=True)
def introduce(self: JobTask, folder: str) -> dict[str, Any]:
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


@shared_task(name="stubborn")
def stubborn(record_file: str, gate: str) -> None:
    """Wait for the file `gate` without reporting progress, and so without noticing a cancellation."""
    with Path(record_file).open("a") as file:
        file.write("ran\n")
    while not Path(gate).exists():
        time.sleep(0.01)
