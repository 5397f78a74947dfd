"""Every promise, in the order of docs/promises.md, with its mutants."""

from __future__ import annotations

from tests.mutants.catalogue import access, crashes, exactly_once, outages, recovery, rows

PROMISES = (
    rows.ROW_FIRST,
    rows.TERMINAL,
    recovery.EVERY_JOB_ENDS,
    exactly_once.ONE_MAIL,
    crashes.CRASH_LIMIT,
    outages.OUTAGES,
    access.OWN_DATA,
    rows.ONE_UNFINISHED,
    access.MESSAGES,
    access.JSON,
)

MUTANTS = tuple(mutant for promise in PROMISES for mutant in promise.mutants)

__all__ = ["MUTANTS", "PROMISES"]
