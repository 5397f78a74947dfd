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
ABOUT = """\
Ask for a token with your username and password, then send it with everything else. You can have several, each with
a name, and revoke each.

**Lists** come in pages: follow `next` and `prev`, which are also in the `Link` header, until they are null.

**What has not changed** need not be sent again: each answer to a GET has an `ETag`; send it as `If-None-Match`, and
304 says that what you have is still right.

**How much you may ask** is counted for each token: `X-RateLimit-Remaining` says how many requests are left until
`X-RateLimit-Reset`. Beyond that the answer is 429, with `Retry-After` in seconds.

**A job** that you start runs in the background: the answer has its address in `Location`. Ask there until `state`
is one of SUCCESS, FAILURE and REVOKED.

**What asks for your password again** is done on the pages alone: a new password, a new mail address, the end of the
account. A token in wrong hands can be revoked; it cannot be used to lock you out.

**A refusal** is problem JSON (RFC 9457) with one sentence in `detail`. Every address takes OPTIONS, which says in
`Allow` what else it takes, and HEAD where it takes GET; any other method is refused with 405, which says the same.
"""
_HEADERS_OF_REFUSALS = {
    HTTPStatus.UNAUTHORIZED: "WWW-Authenticate",
    HTTPStatus.TOO_MANY_REQUESTS: "Retry-After",
    HTTPStatus.SERVICE_UNAVAILABLE: "Retry-After",
}


class _Converter(OpenAPIConverter):
    """Says of what is sent to us that it has no other fields, which apispec does not where there is a description."""

    def schema2jsonschema(self, schema: Any) -> dict[str, Any]:
        described: dict[str, Any] = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        closed = isinstance(resolve_schema_instance(schema), RequestSchema)
        return described | ({"additionalProperties": False} if closed else {})


class _Schemas(MarshmallowPlugin):
    Converter = _Converter


class Api(flask_smorest.Api):
    """flask-smorest, with this site's own error answers."""

    DEFAULT_ERROR_RESPONSE_NAME = None  # each answer is documented by its own status

    def __init__(self, app: Flask) -> None:
        app.config["OPENAPI_URL_PREFIX"] = "/api"
        document = {
            "title": "Microblog",
            "version": "1",
            "openapi_version": "3.1.0",
            "info": {"description": ABOUT},
            "security": [{"bearer": []}],
        }
        super().__init__(app, spec_kwargs=document | {"marshmallow_plugin": _Schemas()})
        components = self.spec.components
        components.security_scheme("basic", {"type": "http", "scheme": "basic"})
        components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
        for name, header in HEADERS.items():
            components.header(name, header)

    def register(self, resource: Blueprint) -> None:
        """Add a resource to the app, and to the document under its tag, which need not be its name."""
        self._app.register_blueprint(resource)
        resource.register_views_in_doc(self, self._app, self.spec, name=resource.name, parameters=None)
        if resource.description:  # of several resources under one tag, one describes it
            self.spec.tag({"name": resource.tag, "description": resource.description})

    def _register_error_handlers(self) -> None:
        """Register none: the site's own handler answers all errors, those of the API too (errors.py)."""

    def _register_responses(self) -> None:
        for status in HTTPStatus:
            if status >= HTTPStatus.BAD_REQUEST:
                self._register_problem(status)

    def _register_pagination_header(self) -> None:
        """Register none: lists are paged by a link, not by a header that counts them."""

    def _register_problem(self, status: HTTPStatus) -> None:
        names = [*RATE_LIMIT, *([_HEADERS_OF_REFUSALS[status]] if status in _HEADERS_OF_REFUSALS else [])]
        answer = {
            "description": status.phrase,
            "content": {PROBLEM: {"schema": ProblemSchema}},
            "headers": {name: name for name in names},
        }
        self.spec.components.response(status.name, answer, lazy=True)


bp = flask.Blueprint(
    "api_docs",
    __name__,
    url_prefix="/api/docs",
    static_folder=Path(flask_swagger_ui.__file__).with_name("dist"),
    static_url_path="/ui",
)


@bp.get("")
def index() -> str:
    """The API's documentation, where each request can be tried."""
    return render_template("api/docs.html")
