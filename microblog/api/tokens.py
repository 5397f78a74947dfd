"""/api/tokens: the keys to all else."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import Any

from flask import current_app

from microblog.api.auth import presented_token, require_token, user_by_password
from microblog.api.blueprint import Blueprint
from microblog.api.models import ApiToken
from microblog.api.schemas import TokenSchema
from microblog.extensions import db, limiter

bp = Blueprint("api_tokens", __name__, url_prefix="/api/tokens", tag="tokens", description="The keys to all else.")


@bp.post("")
@bp.response(HTTPStatus.CREATED, TokenSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)
@bp.doc(security=[{"basic": []}])
@limiter.limit(lambda: current_app.config["RATELIMIT_SIGN_IN"])
def create() -> dict[str, Any]:
    """Make a token, for a username and its password."""
    lifetime = timedelta(seconds=current_app.config["API_TOKEN_LIFETIME"])
    token, row = ApiToken.issue(user_by_password(), lifetime)
    db.session.commit()
    return {"token": token, "expires_at": row.expires_at.isoformat().replace("+00:00", "Z")}


@bp.delete("")
@bp.response(HTTPStatus.NO_CONTENT)
@bp.refuses(HTTPStatus.UNAUTHORIZED)
def revoke() -> None:
    """Revoke the token that is presented."""
    require_token()
    db.session.delete(presented_token())
    db.session.commit()
