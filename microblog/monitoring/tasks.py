"""The room's periodic task."""

from __future__ import annotations

from celery import shared_task

from microblog.monitoring import roll_up as statistics


@shared_task(name="roll_up", ignore_result=True, every="ROLL_UP_INTERVAL")
def roll_up() -> None:
    """Add tasks that finished to the statistics."""
    statistics.roll_up()
