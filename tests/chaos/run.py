"""One run: load and faults, then everything is healed, then what became of it all."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from flask import Flask

from microblog.extensions import db
from microblog.taskqueue.models import Task
from tests.chaos.faults import Faults
from tests.chaos.people import People
from tests.chaos.schedule import plan
from tests.chaos.town import Town
from tests.chaos.verdict import Verdict, Violation
from tests.support.servers import Postgres

PROMISE = 60.0  # seconds from the moment when everything is healed until every job has ended
SMTP_DELAY = 0.15  # seconds that the mail server takes for a mail
LOG_LINES = 60  # shown for each job that a promise was broken for


@dataclass
class Report:
    """What happened in a run."""

    seed: int
    database: str
    folder: Path
    jobs: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    mails: int = 0
    repeated_mails: int = 0
    recovery: float = 0.0  # seconds from the moment when everything was healed until the last job ended
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed} on {self.database}: " + ("KEPT" if not self.violations else "BROKEN"),
            f"  {self.jobs.total()} jobs: {_listed(self.jobs)}; {self.mails} mails"
            + (f", {self.repeated_mails} of them twice in the honest instant" if self.repeated_mails else ""),
            f"  {self.faults.total()} faults: {_listed(self.faults)}",
            f"  answers by status: {_listed(self.statuses)}",
            f"  the last job ended {self.recovery:.1f} s after everything was healed",
        ]
        if self.violations:
            lines += [f"  {len(self.violations)} broken promises; logs are in {self.folder}:", *self.violations]
        return "\n".join(lines)


def run(seed: int, seconds: float, database: str, folder: Path, postgres: Postgres | None) -> Report:
    """Let faults come for `seconds`, heal everything, wait, and report. The logs are in `folder` afterwards."""
    town = Town(folder, database, postgres)
    report = Report(seed, database, folder)
    with town.open() as app:
        town.smtp.delay = SMTP_DELAY
        people = People(town.url, seed)
        people.settle()
        people.live()
        faults = Faults(town, people, app)
        faults.run(plan(seed, seconds))
        people.rest()
        healed = town.heal()
        _wait_for_ends(town, people, faults, until=healed + PROMISE)
        _judge(report, app, Verdict(town, people, faults), healed)
        report.faults = Counter(struck.fault.kind for struck in faults.struck)
        report.statuses = people.statuses()
        report.mails = len(town.smtp.deliveries)
    return report


def _wait_for_ends(town: Town, people: People, faults: Faults, until: float) -> None:
    """Return when every job has ended and everything is cleared away, or at `until`."""
    while time.time() < until:
        with contextlib.suppress(sa.exc.OperationalError):
            unfinished = db.session.scalar(
                sa.select(Task.id).where(Task.unfinished, Task.user_id.is_not(None)).limit(1)
            )
            db.session.rollback()
            if unfinished is None and not list(Verdict(town, people, faults).violations()):
                return
        time.sleep(1)


def _judge(report: Report, app: Flask, verdict: Verdict, healed: float) -> None:
    report.jobs = verdict.counts()
    report.repeated_mails = verdict.repeated
    report.recovery = max(0.0, (verdict.last_end() or time.time()) - healed)
    for violation in verdict.violations():
        report.violations.append("\n".join(_evidence(violation, report.folder)))


def _evidence(violation: Violation, folder: Path) -> Iterator[str]:
    """The broken promise, with the rows of its job and what the logs say of it."""
    yield f"  * {violation.job_id or ''} {violation.what}"
    tasks = db.session.scalars(sa.select(Task).where(Task.root_id == violation.job_id).order_by(Task.position)).all()
    ids = [task.id for task in tasks] or [violation.job_id or violation.what]
    for task in tasks:
        facts = {name: value for name, value in vars(task).items() if name not in ("signature", "_sa_instance_state")}
        yield f"      {facts}"
    shown = 0
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text(errors="replace").splitlines():
            if any(task_id in line for task_id in ids) and shown < LOG_LINES:
                shown += 1
                yield f"      {log.stem}: {line[:400]}"


def _listed(counts: Counter[str] | Counter[int]) -> str:
    return (
        ", ".join(f"{count} {name or 'nobody answered'}" for name, count in sorted(counts.items(), key=str)) or "none"
    )
