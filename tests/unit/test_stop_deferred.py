"""A process that sends a mail defers SIGTERM until it has recorded that."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from microblog.mail.sending import _stop_deferred


@pytest.fixture
def received() -> Iterator[list[int]]:
    """The signals that reach the handler of the process."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


def test_signal_is_delivered_after_the_block(received: list[int]) -> None:
    with _stop_deferred():
        signal.raise_signal(signal.SIGTERM)
        assert received == []

    assert received == [signal.SIGTERM]
    signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGTERM] * 2


def test_signal_is_delivered_after_an_error(received: list[int]) -> None:
    def refuse() -> None:
        with _stop_deferred():
            signal.raise_signal(signal.SIGTERM)
            raise OSError("the server has closed the connection")

    with pytest.raises(OSError, match="closed the connection"):
        refuse()

    assert received == [signal.SIGTERM]


def test_other_threads_may_send(received: list[int]) -> None:
    """As in a pool of threads, where only the main thread may set handlers."""
    sent: list[bool] = []

    def send() -> None:
        with _stop_deferred():
            sent.append(True)

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()

    assert sent == [True]
