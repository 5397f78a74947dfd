"""Progress is seen often, written seldom, and its first and last counts always."""

from __future__ import annotations

from typing import Any

import pytest

from microblog.taskqueue.interface import Progress


class RecordingTask:
    """Stands in for a task: keeps what update_state() gets."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, Any], bool]] = []

    def update_state(self, *, state: str, meta: dict[str, Any], persist: bool) -> None:
        assert state == "PROGRESS"
        self.calls.append((meta, persist))


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def count(seconds: float, step: float) -> RecordingTask:
    """A task that counts one every `step` seconds, for so many seconds."""
    task, clock = RecordingTask(), Clock()
    with Progress(task, total=round(seconds / step), clock=clock) as progress:  # type: ignore[arg-type]
        for _ in range(round(seconds / step)):
            clock.now += step
            progress.advance()
    return task


def test_at_most_five_a_second_are_seen_and_one_a_second_is_written() -> None:
    task = count(seconds=10, step=0.001)

    assert 45 <= len(task.calls) <= 52
    assert 10 <= sum(persist for _meta, persist in task.calls) <= 12


def test_the_first_and_the_last_count_are_always_written() -> None:
    task = count(seconds=0.01, step=0.001)

    assert [(meta["current"], meta["percent"], persist) for meta, persist in task.calls] == [
        (0, 0, True),
        (10, 100, True),
    ]


def test_slow_work_is_seen_at_each_step() -> None:
    assert len(count(seconds=20, step=2).calls) == 12


def test_an_iterable_is_counted_as_it_is_consumed() -> None:
    task = RecordingTask()

    with Progress(task, total=3) as progress:  # type: ignore[arg-type]
        assert list(progress.track("abc")) == ["a", "b", "c"]

    assert progress.current == 3


def test_what_failed_does_not_claim_to_be_done() -> None:
    task = RecordingTask()

    def work() -> None:
        with Progress(task, total=3) as progress:  # type: ignore[arg-type]
            progress.advance()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()

    assert len(task.calls) == 1


@pytest.mark.parametrize("total", [None, 0])
def test_an_unknown_or_empty_total_is_no_division(total: int | None) -> None:
    assert Progress(RecordingTask(), total=total).percent == 0  # type: ignore[arg-type]


def test_the_description_is_made_of_the_counts() -> None:
    task = RecordingTask()

    with Progress(task, total=2, describe=lambda current, total: f"{current} of {total}"):  # type: ignore[arg-type]
        pass

    assert task.calls[0][0]["message"] == "0 of 2"
