"""Details of a job from other packages, such as mails and archives, for operators.

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
    """Register the function that returns the details of this kind for a job."""

    def register(provider: DetailProvider) -> DetailProvider:
        _providers[kind] = provider
        return provider

    return register


def detail_names() -> list[str]:
    """Return the registered kinds of details."""
    return sorted(_providers)


def details_of(job: Job) -> dict[str, list[Details]]:
    """Return the details of `job` by kind, such as ``mails`` and ``archives``; a kind may have an empty list."""
    return {kind: _providers[kind](job) for kind in detail_names()}
