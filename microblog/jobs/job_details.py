"""Details of a job from other packages, such as mails and archives, for operators.

A package registers a function ::

    @adds_job_details("mails")
    def sent_mails_of(job: Job) -> list[Details]: ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microblog.jobs.models import Job
from microblog.registry import Registry

Details = dict[str, Any]
DetailProvider = Callable[[Job], list[Details]]

_providers = Registry[DetailProvider]()
adds_job_details = _providers.register


def detail_names() -> list[str]:
    """Return the registered kinds of details."""
    return sorted(_providers)


def details_of(job: Job) -> dict[str, list[Details]]:
    """Return the details of `job` by kind, such as ``mails`` and ``archives``; a kind may have an empty list."""
    return {kind: _providers[kind](job) for kind in detail_names()}
