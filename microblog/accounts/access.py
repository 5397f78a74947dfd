"""Who may open a page."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from flask import abort
from flask_login import current_user, login_required

View = TypeVar("View", bound=Callable[..., Any])


def require_operator() -> None:
    """Raise NotFound unless an operator asks: to everybody else there is nothing here, as with foreign tasks.

    Nobody in particular asks where login_required lets OPTIONS pass.
    """
    if not (current_user.is_authenticated and current_user.is_operator):
        abort(404)


def operator_required(view: View) -> View:
    """A decorator: the page is for operators. Whoever is not signed in is asked to; everybody else gets 404."""

    @login_required
    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        require_operator()
        return view(*args, **kwargs)

    return cast(View, guarded)
