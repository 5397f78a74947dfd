"""Probes of services that may hang: each in its own thread, since a driver may block longer than a caller may wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from threading import Lock, Thread
from typing import Any

from flask import Flask

Probes = Mapping[str, Callable[[], Any]]


class ConcurrentProbes:
    """Probes that run concurrently in an app context, with a limit on the time that callers wait.

    A caller of the same object that comes while a probe is still running waits for the same result: each probe has at
    most one thread, whatever the number of callers and however long it hangs. A command makes an object of its own.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._lock = Lock()
        self._futures: dict[str, Future[Any]] = {}

    def run(self, probes: Probes, timeout: float) -> dict[str, Future[Any]]:
        """Return the futures by name; that of a probe that takes more than `timeout` seconds is not done."""
        with self._lock:
            futures = {name: self._start(name, probe) for name, probe in probes.items()}
        wait(futures.values(), timeout)
        return futures

    def _start(self, name: str, probe: Callable[[], Any]) -> Future[Any]:
        future = self._futures.get(name)
        if future is None or future.done():
            future = Future()
            Thread(target=self._run_one, args=(probe, future), name=f"probe-{name}", daemon=True).start()
            self._futures[name] = future
        return future

    def _run_one(self, probe: Callable[[], Any], future: Future[Any]) -> None:
        try:
            with self._app.app_context():
                value = probe()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(value)
