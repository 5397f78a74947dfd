"""Progress: reported often, persisted rarely, and always persisted at the first and last count."""

from __future__ import annotations

from typing import Any

import pytest

from microblog.taskqueue.interface import Progress
from microblog.taskqueue.worker import JobTask


class RecordingTask(JobTask):
    """A task that records the calls of update_state()."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, Any], bool]] = []

    def update_state(self, *, state: str, meta: dict[str, Any], persist: bool) -> None:
        assert state == "PROGRESS"
        self.calls.append((meta, persist))


class Clock:
    """A clock that advances only when a test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def count(seconds: float, step: float) -> RecordingTask:
    """Return a task that advanced by one every `step` seconds for `seconds` seconds."""
    task, clock = RecordingTask(), Clock()
    with Progress(task, total=round(seconds / step), clock=clock) as progress:
        for _ in range(round(seconds / step)):
            clock.now += step
            progress.advance()
    return task


def test_updates_are_throttled_and_persisted_once_a_second() -> None:
    task = count(seconds=10, step=0.001)

    assert 45 <= len(task.calls) <= 52
    assert 10 <= sum(persist for _meta, persist in task.calls) <= 12


def test_first_and_last_count_are_persisted() -> None:
    task = count(seconds=0.01, step=0.001)

    assert [(meta["current"], meta["percent"], persist) for meta, persist in task.calls] == [
        (0, 0, True),
        (10, 100, True),
    ]


def test_slow_steps_are_all_reported() -> None:
    assert len(count(seconds=20, step=2).calls) == 12


def test_track_counts_consumed_items() -> None:
    task = RecordingTask()

    with Progress(task, total=3) as progress:
        assert list(progress.track("abc")) == ["a", "b", "c"]

    assert progress.current == 3


def test_failed_work_reports_no_last_count() -> None:
    task = RecordingTask()

    def work() -> None:
        with Progress(task, total=3) as progress:
            progress.advance()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()

    assert len(task.calls) == 1


@pytest.mark.parametrize("total", [None, 0])
def test_percent_is_zero_without_total(total: int | None) -> None:
    assert Progress(RecordingTask(), total=total).percent == 0


def test_describe_formats_message() -> None:
    task = RecordingTask()

    with Progress(task, total=2, describe=lambda current, total: f"{current} of {total}"):
        pass

    assert task.calls[0][0]["message"] == "0 of 2"
