"""The blueprint class of all API resources: JSON bodies, authentication, rate limits, problem JSON."""

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
from microblog.security import apply_upload_limit

View = TypeVar("View", bound=Callable[..., Any])

# The errors that any request may cause; they are documented for every operation.
_COMMON_ERRORS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


class Parser(FlaskParser):
    """A request parser that reports errors as problem JSON."""

    def load_json(self, req: Request, schema: Any) -> Any:
        """Return the parsed body (see read_json())."""
        return read_json(req)

    def handle_error(self, error: ValidationError, *args: Any, **options: Any) -> NoReturn:
        """Respond with 422 and the errors of each field."""
        abort_invalid(error.messages)


class Blueprint(flask_smorest.Blueprint):
    """A resource of the API. The OpenAPI document is generated from its decorators.

    `tag` is its name in the document. `guard` is called before each request and may raise Unauthorized: require_token
    or require_token_unless_post.
    """

    ARGUMENTS_PARSER = Parser()

    def __init__(self, *args: Any, tag: str, guard: Callable[[], None] = auth.require_token, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tag = tag
        self._guard = guard
        for hook in (auth.load_token, responses.limit_requests, guard, _check_body):
            self.before_request(hook)
        self.after_request(responses.add_etag)
        self._prepare_doc_cbks.append(self._document_common_responses)

    def add_url_rule(self, *args: Any, tags: list[str] | None = None, **options: Any) -> None:
        """Like Flask's method; the view is documented under the resource's tag."""
        super().add_url_rule(*args, tags=tags or [self.tag], **options)

    def error_responses(self, *statuses: HTTPStatus) -> Callable[[View], View]:
        """Return a decorator that documents further error statuses of a view (see _document_common_responses())."""

        def decorate(view: View) -> View:
            for status in statuses:
                view = self.alt_response(status, response=status.name)(view)
            return view

        return decorate

    def lists(self, schema: type[Schema], query: type[Schema] = PageQuerySchema) -> Callable[[View], View]:
        """Return a decorator for a view that returns a page of a list (see responses.page_response()).

        The view gets the query string parsed by `query`, which selects the page. `schema` describes the page.
        """

        def decorate(view: View) -> View:
            view = self.response(HTTPStatus.OK, schema, headers={"Link": "Link"})(view)
            arguments: View = self.arguments(query, location="query")(view)
            return arguments

        return decorate

    def _document_common_responses(
        self, doc: dict[str, Any], doc_info: Any, *, method: str, **options: Any
    ) -> dict[str, Any]:
        """Add the responses and headers of the hooks in __init__() to the operation `doc`."""
        answers = doc["responses"]
        answers |= {str(int(status)): status.name for status in _COMMON_ERRORS}
        if self._guard is auth.require_token or method != "post":
            answers["401"] = HTTPStatus.UNAUTHORIZED.name
        if method == "get":
            answers["304"] = {"description": "Not modified: your copy is still valid.", "headers": {"ETag": "ETag"}}
            answers["412"] = HTTPStatus.PRECONDITION_FAILED.name
        for status, answer in answers.items():
            if not isinstance(answer, dict):
                continue
            names = [*responses.RATE_LIMIT, *(["ETag"] if method == "get" and str(status) == "200" else [])]
            answer["headers"] = {name: name for name in names} | (answer.get("headers") or {})
        return doc


def read_json(req: Request) -> Any:
    """Return the parsed body of `req`, or webargs' `missing` if it is empty.

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


def abort_invalid(errors: Any) -> NoReturn:
    """Respond with 422; `errors` contains the errors by location (json, query) and field."""
    message = _("Some of what was sent cannot be taken; “errors” says what is wrong with it.")
    abort(problem(UnprocessableEntity(message), errors=errors))


def _check_body() -> None:
    """Reject a body that is not JSON, also where no body is expected, since it requests something unsupported.

    The body of an upload is not parsed here; its view reads it in chunks.
    """
    if apply_upload_limit():
        _check_type(request)
    else:
        read_json(request)


def _check_type(req: Request) -> None:
    if not req.is_json:
        abort(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, _("Send JSON, with “Content-Type: application/json”."))
