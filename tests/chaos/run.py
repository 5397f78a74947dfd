"""One run: load and faults, the repair of all faults, and the check of every promise."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from microblog.extensions import db
from microblog.taskqueue.models import Task
from tests.chaos.deployment import Deployment
from tests.chaos.faults import Faults
from tests.chaos.invariants import Invariants, Violation
from tests.chaos.load import Load
from tests.chaos.schedule import left_out, plan
from tests.support.servers import Postgres

RECOVERY_TIMEOUT = 60.0  # seconds after the end of the last fault within which every job ends
SMTP_DELAY = 0.15  # seconds that the SMTP server takes for a mail
LOG_LINES = 60  # shown for each job with a broken promise


@dataclass
class ChaosReport:
    """The result of a run."""

    seed: int
    database: str
    folder: Path
    jobs: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    mails: int = 0
    repeated_mails: int = 0
    recovery: float = 0.0  # seconds from the end of the last fault to that of the last job that was launched before
    left_out: dict[str, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed} on {self.database}: " + ("KEPT" if not self.violations else "BROKEN"),
            f"  {self.jobs.total()} jobs: {_join(self.jobs)}; {self.mails} mails"
            + (f", {self.repeated_mails} of them sent twice" if self.repeated_mails else ""),
            f"  {self.faults.total()} faults: {_join(self.faults)}",
            f"  responses by status: {_join(self.statuses)}",
            f"  last job ended {self.recovery:.1f} s after the last fault",
            *(f"  left out: {kind}, since {reason}" for kind, reason in self.left_out.items()),
        ]
        if self.violations:
            lines += [f"  {len(self.violations)} broken promises; logs are in {self.folder}:", *self.violations]
        return "\n".join(lines)


def run(seed: int, seconds: float, database: str, folder: Path, postgres: Postgres | None) -> ChaosReport:
    """Inject faults for `seconds`, wait until all jobs have ended, and report. The logs are stored in `folder`."""
    system = Deployment(folder, database, postgres)
    report = ChaosReport(seed, database, folder, left_out=left_out(database))
    with system.open() as app:
        system.smtp.delay = SMTP_DELAY
        load = Load(system.url, seed)
        load.create_users()
        load.start()
        faults = Faults(system, load, app)
        faults.run([fault for fault in plan(seed, seconds) if fault.kind not in report.left_out])
        ended_at = time.time()
        load.stop()
        system.repair()
        _wait_for_ends(system, load, faults, until=ended_at + RECOVERY_TIMEOUT)
        _check(report, Invariants(system, load, faults), ended_at)
        report.faults = Counter(occurrence.fault.kind for occurrence in faults.injected)
        report.statuses = load.statuses()
        report.mails = len(system.smtp.deliveries)
    return report


def _wait_for_ends(system: Deployment, load: Load, faults: Faults, until: float) -> None:
    """Return when every job has ended and no promise is broken, or at the time `until`."""
    while time.time() < until:
        with contextlib.suppress(sa.exc.OperationalError):
            unfinished = db.session.scalar(
                sa.select(Task.id).where(Task.unfinished, Task.user_id.is_not(None)).limit(1)
            )
            db.session.rollback()
            if unfinished is None and not list(Invariants(system, load, faults).violations()):
                return
        time.sleep(1)


def _check(report: ChaosReport, invariants: Invariants, ended_at: float) -> None:
    report.jobs = invariants.counts()
    report.repeated_mails = invariants.repeated
    report.recovery = max(0.0, invariants.last_end(ended_at) - ended_at)
    for violation in invariants.violations():
        report.violations.append("\n".join(_details(violation, report.folder)))


def _details(violation: Violation, folder: Path) -> Iterator[str]:
    """Yield the broken promise, the rows of its job, and the log lines about it."""
    yield f"  * {violation.job_id or ''} {violation.sentence}"
    tasks = db.session.scalars(sa.select(Task).where(Task.root_id == violation.job_id).order_by(Task.position)).all()
    ids = [task.id for task in tasks] or [violation.job_id or violation.sentence]
    for task in tasks:
        columns = {name: value for name, value in vars(task).items() if name not in ("signature", "_sa_instance_state")}
        yield f"      {columns}"
    shown = 0
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text(errors="replace").splitlines():
            if any(task_id in line for task_id in ids) and shown < LOG_LINES:
                shown += 1
                yield f"      {log.stem}: {line[:400]}"


def _join(counts: Counter[str] | Counter[int]) -> str:
    return (
        ", ".join(f"{count} {name or 'without response'}" for name, count in sorted(counts.items(), key=str)) or "none"
    )
