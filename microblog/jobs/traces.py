"""What a job leaves behind outside its own rows: each room tells of what it keeps, whoever shows the job.

A room registers a function when it is wired in, so that this one need not know it ::

    @traces.tells("mails")
    def mails_of(job: Job) -> list[Facts]: ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microblog.jobs.job import Job

Facts = dict[str, Any]
Teller = Callable[[Job], list[Facts]]

_tellers: dict[str, Teller] = {}


def tells(kind: str) -> Callable[[Teller], Teller]:
    """Register the function that tells, for operators, what a job left of this kind."""

    def register(teller: Teller) -> Teller:
        _tellers[kind] = teller
        return teller

    return register


def kinds() -> list[str]:
    """The kinds of traces that there are."""
    return sorted(_tellers)


def of(job: Job) -> dict[str, list[Facts]]:
    """All that `job` left behind, by kind, such as ``mails`` and ``archives``; none of a kind is an empty list."""
    return {kind: _tellers[kind](job) for kind in kinds()}
