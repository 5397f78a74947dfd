"""The OpenAPI document at /api/openapi.json, and Swagger UI for it at /api/docs, served without a CDN."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

import flask
import flask_smorest
import flask_swagger_ui
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.common import resolve_schema_instance
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask import Flask, render_template

from microblog.api.blueprint import Blueprint
from microblog.api.responses import HEADERS, RATE_LIMIT
from microblog.api.schemas import ProblemSchema, RequestSchema

PROBLEM = "application/problem+json"
DESCRIPTION = """\
Create a token with your username and password, then send it with all other requests. You can have several tokens,
each with a name, and revoke each of them.

**Lists** are paginated: follow `next` and `prev`, which are also in the `Link` header, until they are null.

**Caching:** each response to a GET has an `ETag`. Send it as `If-None-Match`; a 304 response means that your copy is
still valid.

**Rate limits** apply to each token: `X-RateLimit-Remaining` is the number of requests left until
`X-RateLimit-Reset`. Beyond the limit the response is 429, with `Retry-After` in seconds.

**Jobs** run in the background: the response to the request that starts one has its path in `Location`. Poll it until
`state` is SUCCESS, FAILURE or REVOKED.

**Changes that require your password again** are only possible on the website: a new password, a new email address,
closing the account. A leaked token can be revoked; it cannot be used to lock you out.

**Errors** are problem JSON (RFC 9457) with one sentence in `detail`. Every URL accepts OPTIONS, which lists the
accepted methods in `Allow`, and HEAD where it accepts GET; any other method is refused with 405 and the same header.
"""
_ERROR_HEADERS = {
    HTTPStatus.UNAUTHORIZED: "WWW-Authenticate",
    HTTPStatus.TOO_MANY_REQUESTS: "Retry-After",
    HTTPStatus.SERVICE_UNAVAILABLE: "Retry-After",
}

bp = flask.Blueprint(
    "api_docs",
    __name__,
    url_prefix="/api/docs",
    static_folder=Path(flask_swagger_ui.__file__).with_name("dist"),
    static_url_path="/ui",
)


class _Converter(OpenAPIConverter):
    """Forbids additional fields in request bodies, which apispec omits for a schema with a description."""

    def schema2jsonschema(self, schema: Any) -> dict[str, Any]:
        described: dict[str, Any] = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        closed = isinstance(resolve_schema_instance(schema), RequestSchema)
        return described | ({"additionalProperties": False} if closed else {})


class _Schemas(MarshmallowPlugin):
    Converter = _Converter


class Api(flask_smorest.Api):
    """flask-smorest's Api with the error responses of this site."""

    DEFAULT_ERROR_RESPONSE_NAME = None  # each response is documented by its own status

    def __init__(self, app: Flask) -> None:
        app.config["OPENAPI_URL_PREFIX"] = "/api"
        document = {
            "title": "Microblog",
            "version": "1",
            "openapi_version": "3.1.0",
            "info": {"description": DESCRIPTION},
            "security": [{"bearer": []}],
        }
        super().__init__(app, spec_kwargs=document | {"marshmallow_plugin": _Schemas()})
        components = self.spec.components
        components.security_scheme("basic", {"type": "http", "scheme": "basic"})
        components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
        for name, header in HEADERS.items():
            components.header(name, header)

    def register(self, resource: Blueprint) -> None:
        """Add a resource to the app, and to the document under its tag, which may differ from its name."""
        self._app.register_blueprint(resource)
        resource.register_views_in_doc(self, self._app, self.spec, name=resource.name, parameters=None)
        if resource.description:  # only one of several resources with the same tag describes it
            self.spec.tag({"name": resource.tag, "description": resource.description})

    def _register_error_handlers(self) -> None:
        """Register none: the site's handler also responds to the errors of the API (errors.py)."""

    def _register_responses(self) -> None:
        for status in HTTPStatus:
            if status >= HTTPStatus.BAD_REQUEST:
                self._register_problem(status)

    def _register_pagination_header(self) -> None:
        """Register none: lists use the Link header, not a header with counts."""

    def _register_problem(self, status: HTTPStatus) -> None:
        names = [*RATE_LIMIT, *([_ERROR_HEADERS[status]] if status in _ERROR_HEADERS else [])]
        response = {
            "description": status.phrase,
            "content": {PROBLEM: {"schema": ProblemSchema}},
            "headers": {name: name for name in names},
        }
        self.spec.components.response(status.name, response, lazy=True)


@bp.get("")
def index() -> str:
    """Show the API's documentation, in which each request can be tried."""
    return render_template("api/docs.html")
