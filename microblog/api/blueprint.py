"""What all resources of the API share: JSON at the door, and problem JSON for what is refused there."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

import flask_smorest
import orjson
from flask import Request, abort, request
from flask_babel import gettext as _
from marshmallow import ValidationError, missing
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import UnprocessableEntity

from microblog.errors import problem

View = TypeVar("View", bound=Callable[..., Any])


class Parser(FlaskParser):
    """Reads requests; refuses with problem JSON."""

    def load_json(self, req: Request, schema: Any) -> Any:
        """The body, parsed, as read_json() has it."""
        return read_json(req)

    def handle_error(self, error: ValidationError, *args: Any, **options: Any) -> NoReturn:
        """Answer 422, with what is wrong with each field."""
        sentence = _("Some of what was sent cannot be taken; “errors” says what is wrong with it.")
        abort(problem(UnprocessableEntity(sentence), errors=error.messages))


class Blueprint(flask_smorest.Blueprint):
    """A resource of the API: documented as it is declared.

    `tag` is its name in the documentation; `guard` is called before each request, to raise Unauthorized.
    """

    ARGUMENTS_PARSER = Parser()

    def __init__(self, *args: Any, tag: str, guard: Callable[[], None] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tag = tag
        if guard is not None:
            self.before_request(guard)
        self.before_request(_check_body)

    def add_url_rule(self, *args: Any, tags: list[str] | None = None, **options: Any) -> None:
        """As Flask's; the view is documented under the resource's tag."""
        super().add_url_rule(*args, tags=tags or [self.tag], **options)

    def refuses(self, *statuses: HTTPStatus) -> Callable[[View], View]:
        """A decorator that documents the statuses with which a view may refuse."""

        def decorate(view: View) -> View:
            for status in statuses:
                view = self.alt_response(status, response=status.name)(view)
            return view

        return decorate


def read_json(req: Request) -> Any:
    """The body of `req`, parsed; webargs' `missing` for an empty one.

    Raises BadRequest and UnsupportedMediaType.
    """
    body = req.get_data()
    if not body:
        return missing
    if not req.is_json:
        abort(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, _("Send JSON, with “Content-Type: application/json”."))
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        abort(HTTPStatus.BAD_REQUEST, _("The body is not JSON: %(reason)s", reason=str(error)))


def _check_body() -> None:
    """Refuse what is no JSON, also where no body is expected: it asks for something that we do not do."""
    read_json(request)
