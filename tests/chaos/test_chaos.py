"""Every promise is kept during a minute of random faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.chaos.schedule import KINDS, plan

SEED = 1
SECONDS = 60.0


def test_the_seed_repeats_the_schedule() -> None:
    assert plan(7, 300) == plan(7, 300)
    assert plan(7, 300) != plan(8, 300)


def test_five_minutes_have_sixty_faults_and_each_kind_among_them() -> None:
    faults = plan(7, 300)

    assert len(faults) >= 60
    assert {fault.kind for fault in faults} == {kind for kind, _length in KINDS}


@pytest.mark.timeout(300)
def test_every_promise_is_kept_whatever_breaks(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    postgres = request.getfixturevalue("postgres_server") if database == "postgresql" else None

    report = run(SEED, SECONDS, database, tmp_path, postgres)

    assert not report.violations, str(report)
    assert report.jobs["SUCCESS"] > 30
