"""Celery's states, grouped by what they mean for a row."""

from __future__ import annotations

from celery import states

PENDING: str = states.PENDING
STARTED: str = states.STARTED
PROGRESS = "PROGRESS"
RETRY: str = states.RETRY
SUCCESS: str = states.SUCCESS
FAILURE: str = states.FAILURE
REVOKED: str = states.REVOKED

WAITING = (PENDING, RETRY)
RUNNING = (STARTED, PROGRESS)
UNFINISHED = WAITING + RUNNING
FINISHED = (SUCCESS, FAILURE, REVOKED)
ALL = UNFINISHED + FINISHED
