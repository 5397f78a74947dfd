"""The blueprint of all API resources: JSON bodies, authentication, limits, problem JSON."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

import flask_smorest
import orjson
from flask import Request, abort, request
from flask_babel import gettext as _
from marshmallow import Schema, ValidationError, missing
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import UnprocessableEntity

from microblog.api import auth, responses
from microblog.api.schemas import PageQuerySchema
from microblog.errors import problem
from microblog.security import admit_upload

View = TypeVar("View", bound=Callable[..., Any])

# What any request may be refused with, whatever it asks for.
_ALWAYS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


class Parser(FlaskParser):
    """Reads requests; refuses with problem JSON."""

    def load_json(self, req: Request, schema: Any) -> Any:
        """The body, parsed, as read_json() has it."""
        return read_json(req)

    def handle_error(self, error: ValidationError, *args: Any, **options: Any) -> NoReturn:
        """Answer 422, with what is wrong with each field."""
        refuse_fields(error.messages)


class Blueprint(flask_smorest.Blueprint):
    """A resource of the API: documented as it is declared.

    `tag` is its name in the documentation; `guard` is called before each request, to raise Unauthorized.
    """

    ARGUMENTS_PARSER = Parser()

    def __init__(self, *args: Any, tag: str, guard: Callable[[], None], **options: Any) -> None:
        super().__init__(*args, **options)
        self.tag = tag
        for hook in (auth.identify, responses.limit_requests, guard, _check_body):
            self.before_request(hook)
        self.after_request(responses.tag)
        self._prepare_doc_cbks.append(_document_what_is_shared)

    def add_url_rule(self, *args: Any, tags: list[str] | None = None, **options: Any) -> None:
        """As Flask's; the view is documented under the resource's tag."""
        super().add_url_rule(*args, tags=tags or [self.tag], **options)

    def refuses(self, *statuses: HTTPStatus) -> Callable[[View], View]:
        """A decorator that documents the statuses with which a view may refuse, besides those of all views."""

        def decorate(view: View) -> View:
            for status in statuses:
                view = self.alt_response(status, response=status.name)(view)
            return view

        return decorate

    def lists(self, schema: type[Schema], query: type[Schema] = PageQuerySchema) -> Callable[[View], View]:
        """A decorator for a view that answers with a page of a list (see pagination.py).

        It is given the `query`, parsed: which part of the list was asked for. `schema` is that of the page.
        """

        def decorate(view: View) -> View:
            view = self.response(HTTPStatus.OK, schema, headers={"Link": "Link"})(view)
            arguments: View = self.arguments(query, location="query")(view)
            return arguments

        return decorate


def read_json(req: Request) -> Any:
    """The body of `req`, parsed; webargs' `missing` for an empty one.

    Raises BadRequest and UnsupportedMediaType.
    """
    body = req.get_data()
    if not body:
        return missing
    _check_type(req)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        abort(HTTPStatus.BAD_REQUEST, _("The body is not JSON: %(reason)s", reason=str(error)))


def refuse_fields(errors: Any) -> NoReturn:
    """Answer 422; `errors` says by place (json, query) and field what is wrong with it."""
    sentence = _("Some of what was sent cannot be taken; “errors” says what is wrong with it.")
    abort(problem(UnprocessableEntity(sentence), errors=errors))


def _check_body() -> None:
    """Refuse what is no JSON, also where no body is expected: it asks for something that we do not do.

    An upload is only let in: its view reads it, a piece at a time.
    """
    if admit_upload():
        _check_type(request)
    else:
        read_json(request)


def _check_type(req: Request) -> None:
    if not req.is_json:
        abort(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, _("Send JSON, with “Content-Type: application/json”."))


def _document_what_is_shared(doc: dict[str, Any], doc_info: Any, *, method: str, **options: Any) -> dict[str, Any]:
    """Add to the operation `doc` the answers and the headers that the hooks above make."""
    answers = doc["responses"]
    answers |= {str(int(status)): status.name for status in _ALWAYS}
    if method == "get":
        answers["304"] = {"description": "What you have is still what there is.", "headers": {"ETag": "ETag"}}
        answers["412"] = HTTPStatus.PRECONDITION_FAILED.name
    for status, answer in answers.items():
        if not isinstance(answer, dict):
            continue
        names = [*responses.RATE_LIMIT, *(["ETag"] if method == "get" and str(status) == "200" else [])]
        answer["headers"] = {name: name for name in names} | (answer.get("headers") or {})
    return doc
