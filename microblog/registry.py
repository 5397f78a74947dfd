"""Functions that feature packages register by name when they are imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


class Registry(dict[str, F]):
    """The registered functions by name, in the order of registration."""

    def register(self, name: str) -> Callable[[F], F]:
        """Return a decorator that registers a function as `name`."""

        def register(function: F) -> F:
            self[name] = function
            return function

        return register
