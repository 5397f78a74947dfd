"""Details of a job that other packages keep, such as mails and archives, for operators.

A package registers a function ::

    @adds_job_details("mails")
    def sent_mails_of(job: Job) -> list[Details]: ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microblog.jobs.models import Job

Details = dict[str, Any]
DetailProvider = Callable[[Job], list[Details]]

_providers: dict[str, DetailProvider] = {}


def adds_job_details(kind: str) -> Callable[[DetailProvider], DetailProvider]:
    """Register the function that tells, for operators, what a job left of this kind."""

    def register(teller: DetailProvider) -> DetailProvider:
        _providers[kind] = teller
        return teller

    return register


def detail_names() -> list[str]:
    """The kinds of traces that there are."""
    return sorted(_providers)


def details_of(job: Job) -> dict[str, list[Details]]:
    """All that `job` left behind, by kind, such as ``mails`` and ``archives``; none of a kind is an empty list."""
    return {kind: _providers[kind](job) for kind in detail_names()}
