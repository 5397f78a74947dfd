"""Every promise is kept during a minute of random faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.chaos.schedule import KINDS, plan

SEED = 1
SECONDS = 60.0


def test_seed_determines_schedule() -> None:
    assert plan(7, 300) == plan(7, 300)
    assert plan(7, 300) != plan(8, 300)


def test_schedule_of_five_minutes_has_every_kind() -> None:
    faults = plan(7, 300)

    assert len(faults) >= 60
    assert {fault.kind for fault in faults} == {kind for kind, _length in KINDS}


@pytest.mark.timeout(300)
def test_promises_under_random_faults(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    postgres = request.getfixturevalue("postgres_server") if database == "postgresql" else None

    report = run(SEED, SECONDS, database, tmp_path, postgres)

    assert not report.violations, str(report)
    assert report.jobs["SUCCESS"] > 30
