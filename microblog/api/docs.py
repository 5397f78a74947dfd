"""/api/docs: the OpenAPI document for people, in Swagger UI, which the site serves itself."""

from __future__ import annotations

from pathlib import Path

import flask_swagger_ui
from flask import Blueprint, render_template

bp = Blueprint(
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
