"""The OpenAPI document at /api/openapi.json, made from what the resources declare."""

from __future__ import annotations

from http import HTTPStatus

import flask_smorest
from flask import Flask

from microblog.api.blueprint import Blueprint
from microblog.api.schemas import ProblemSchema

PROBLEM = "application/problem+json"
ABOUT = """\
Ask for a token with your username and password, then send it with everything else.

A job that you start runs in the background: the answer has its address in `Location`. Ask there until `state`
is one of SUCCESS, FAILURE and REVOKED.
"""


class Api(flask_smorest.Api):
    """flask-smorest, with this site's own error answers."""

    def __init__(self, app: Flask) -> None:
        app.config["OPENAPI_URL_PREFIX"] = "/api"
        document = {
            "title": "Microblog",
            "version": "1",
            "openapi_version": "3.1.0",
            "info": {"description": ABOUT},
            "security": [{"bearer": []}],
        }
        super().__init__(app, spec_kwargs=document)
        schemes = self.spec.components
        schemes.security_scheme("basic", {"type": "http", "scheme": "basic"})
        schemes.security_scheme("bearer", {"type": "http", "scheme": "bearer"})

    def register(self, resource: Blueprint) -> None:
        """Add a resource to the app, and to the document under its tag, which need not be its name."""
        self._app.register_blueprint(resource)
        resource.register_views_in_doc(self, self._app, self.spec, name=resource.name, parameters=None)
        self.spec.tag({"name": resource.tag, "description": resource.description})

    def _register_error_handlers(self) -> None:
        """Register none: the site's own handler answers all errors, those of the API too (errors.py)."""

    def _register_responses(self) -> None:
        for status in HTTPStatus:
            if status >= HTTPStatus.BAD_REQUEST:
                self._register_problem(status.name, status.phrase)
        self._register_problem(self.DEFAULT_ERROR_RESPONSE_NAME, "Any other problem")

    def _register_pagination_header(self) -> None:
        """Register none: lists are paged by a link, not by a header that counts them."""

    def _register_problem(self, name: str, description: str) -> None:
        content = {PROBLEM: {"schema": ProblemSchema}}
        self.spec.components.response(name, {"description": description, "content": content}, lazy=True)
