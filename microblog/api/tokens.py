"""/api/tokens: create, list and revoke tokens."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import Any

from flask import abort, current_app, request
from flask_babel import gettext as _

from microblog.api.auth import caller, presented_token, require_token_unless_post, user_by_password, wrong_password
from microblog.api.blueprint import Blueprint
from microblog.api.models import AccountChanged, ApiToken, TooManyTokens
from microblog.api.responses import PageResponse, page_request, page_response
from microblog.api.schemas import TokenPageSchema, TokenRequestSchema, TokenSchema
from microblog.extensions import db
from microblog.rate_limits import limit_sign_ins

bp = Blueprint(
    "api_tokens",
    __name__,
    url_prefix="/api/tokens",
    tag="tokens",
    description="Tokens, which authenticate the requests to all other resources.",
    guard=require_token_unless_post,
)


@bp.post("")
@bp.arguments(TokenRequestSchema, required=False)
@bp.response(HTTPStatus.CREATED, TokenSchema)
@bp.error_responses(HTTPStatus.UNAUTHORIZED, HTTPStatus.CONFLICT)
@bp.doc(security=[{"basic": []}])
@limit_sign_ins(lambda: (request.authorization and request.authorization.username) or "")
def create(options: dict[str, Any]) -> dict[str, Any]:
    """Create a token, authenticated by username and password."""
    lifetime = timedelta(seconds=current_app.config["API_TOKEN_LIFETIME"])
    try:
        token, row = ApiToken.issue(user_by_password(), lifetime, options.get("name", "").strip())
    except AccountChanged:
        raise wrong_password() from None
    except TooManyTokens as error:
        abort(HTTPStatus.CONFLICT, str(error))
    db.session.commit()
    return {"token": token, "expires_at": row.expires_at}


@bp.get("")
@bp.lists(TokenPageSchema)
def index(query: dict[str, Any]) -> PageResponse:
    """List your tokens, newest first."""
    page = ApiToken.page_of(caller(), page_request(query))
    return page_response(query, page, page.items)


@bp.delete("")
@bp.response(HTTPStatus.NO_CONTENT)
def revoke() -> None:
    """Revoke the token of this request."""
    db.session.delete(presented_token())
    db.session.commit()


@bp.delete("/<int:token_id>")
@bp.response(HTTPStatus.NO_CONTENT)
@bp.error_responses(HTTPStatus.NOT_FOUND)
def revoke_one(token_id: int) -> None:
    """Revoke one of your tokens."""
    if not ApiToken.revoke(caller(), token_id):
        abort(HTTPStatus.NOT_FOUND, _("You have no such token."))
