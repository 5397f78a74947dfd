"""Every promise, in the order of the docs, and the mutants that show what holds it."""

from __future__ import annotations

from tests.mutants.catalogue import away, beginning, ending, once, people

PROMISES = (
    beginning.ROW_FIRST,
    beginning.TERMINAL,
    ending.EVERY_JOB_ENDS,
    once.ONE_MAIL,
    ending.NO_LOOP,
    away.SOMETHING_IS_AWAY,
    people.THEIRS,
    beginning.ONE_UNFINISHED,
    people.MESSAGES,
    people.JSON,
)

MUTANTS = tuple(mutant for promise in PROMISES for mutant in promise.mutants)

__all__ = ["MUTANTS", "PROMISES"]
