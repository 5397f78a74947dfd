"""Task that aggregates finished tasks."""

from __future__ import annotations

from celery import shared_task

from microblog.monitoring import rollup


@shared_task(name="roll_up", ignore_result=True, interval_setting="ROLL_UP_INTERVAL")
def roll_up() -> None:
    """Add finished tasks to the statistics."""
    rollup.roll_up()
