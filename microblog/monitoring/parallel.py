"""Asks several parts at once, each in a thread of its own, since a driver may wait longer than whoever asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any

from flask import Flask

Questions = Mapping[str, Callable[[], Any]]


class Parallel:
    """Asks questions within an app context, and waits for the answers no longer than it is told to.

    Whoever asks while a part is still being asked waits for the same answer: however many ask, however long a part
    hangs, there is never more than one thread for each.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = Lock()
        self._asked: dict[str, Future[Any]] = {}

    def ask(self, questions: Questions, timeout: float) -> dict[str, Future[Any]]:
        """The answers, by the names of the parts; one that did not come within `timeout` seconds is not done."""
        until = time.monotonic() + timeout
        with self._lock:
            asked = {name: self._ask(name, question) for name, question in questions.items()}
        for answer in asked.values():
            _wait(answer, max(0.0, until - time.monotonic()))
        return asked

    def _ask(self, name: str, question: Callable[[], Any]) -> Future[Any]:
        answer = self._asked.get(name)
        if answer is None or answer.done():
            answer = self._asked[name] = Future()
            Thread(target=self._run, args=(question, answer), name=f"ask-{name}", daemon=True).start()
        return answer

    def _run(self, question: Callable[[], Any], answer: Future[Any]) -> None:
        try:
            with self._app.app_context():
                said = question()
        except Exception as error:
            answer.set_exception(error)
        else:
            answer.set_result(said)


def _wait(answer: Future[Any], timeout: float) -> None:
    try:
        answer.exception(timeout)
    except TimeoutError:
        return
