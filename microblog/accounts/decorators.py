"""View decorator that restricts pages to operators."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from flask import abort
from flask_login import current_user, login_required

View = TypeVar("View", bound=Callable[..., Any])


def require_operator() -> None:
    """Raise NotFound unless the current user is an operator: other users must not learn that the page exists.

    The user is anonymous if login_required has let an OPTIONS request pass.
    """
    if not (current_user.is_authenticated and current_user.is_operator):
        abort(404)


def operator_required(view: View) -> View:
    """Restrict a view to operators. Anonymous users are redirected to the sign-in page; other users get 404."""

    @login_required
    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        require_operator()
        return view(*args, **kwargs)

    return cast(View, guarded)
