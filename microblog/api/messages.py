"""/api/messages: private messages received and sent by the caller."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NoReturn

from flask import abort, url_for
from flask_babel import gettext as _

from microblog.accounts.models import User
from microblog.api.auth import caller
from microblog.api.blueprint import Blueprint, abort_invalid
from microblog.api.responses import PageResponse, page_request, page_response
from microblog.api.schemas import MessagePageSchema, MessageRequestSchema, MessageSchema, MessagesReadSchema
from microblog.messages.models import Message
from microblog.messages.services import (
    RecipientUnavailable,
    delete_message,
    find_messages,
    mark_messages_read,
    messages_received_by,
    messages_sent_by,
    normalize_body,
    send_message,
)
from microblog.rate_limits import limit_user

bp = Blueprint(
    "api_messages",
    __name__,
    url_prefix="/api/messages",
    tag="messages",
    description="Private messages between you and other users.",
)


@bp.get("")
@bp.lists(MessagePageSchema)
def received(query: dict[str, Any]) -> PageResponse:
    """List the messages that you received, newest first.

    This does not mark them as read.
    """
    page = messages_received_by(caller(), page_request(query))
    return page_response(query, page, page.items)


@bp.get("/sent")
@bp.lists(MessagePageSchema)
def sent(query: dict[str, Any]) -> PageResponse:
    """List the messages that you sent, newest first."""
    page = messages_sent_by(caller(), page_request(query))
    return page_response(query, page, page.items)


@bp.post("")
@bp.arguments(MessageRequestSchema)
@bp.response(HTTPStatus.CREATED, MessageSchema, headers={"Location": "Location"})
@limit_user("RATELIMIT_MESSAGE", lambda: caller().id)
def create(data: dict[str, Any]) -> tuple[Message, dict[str, str]]:
    """Send a message to a user."""
    try:
        body = normalize_body(data["message"])
    except ValueError as error:
        abort_invalid({"json": {"message": [str(error)]}})
    try:
        message = send_message(caller(), _recipient(data["to"]), body)
    except RecipientUnavailable:
        _refuse_recipient(_("There is nobody of this name."))
    return message, {"Location": url_for(".show", message_id=message.id)}


@bp.post("/read")
@bp.arguments(MessagesReadSchema)
@bp.response(HTTPStatus.NO_CONTENT)
def read(data: dict[str, Any]) -> None:
    """Mark messages that you received as read.

    Messages that are already read or no longer exist are ignored.
    """
    mark_messages_read(caller(), find_messages(caller(), data["ids"]))


@bp.get("/<int:message_id>")
@bp.response(HTTPStatus.OK, MessageSchema)
@bp.error_responses(HTTPStatus.NOT_FOUND)
def show(message_id: int) -> Message:
    """Show a message that you sent or received.

    This does not mark it as read.
    """
    return _own(message_id)


@bp.delete("/<int:message_id>")
@bp.response(HTTPStatus.NO_CONTENT)
@bp.error_responses(HTTPStatus.NOT_FOUND)
def delete(message_id: int) -> None:
    """Delete a message for yourself.

    The other user still has it.
    """
    if not delete_message(caller(), _own(message_id).id):
        abort(HTTPStatus.NOT_FOUND, _("There is no such message."))


def _recipient(username: str) -> User:
    """Return the recipient with this name. Responds with 422 if there is none, or if it is the caller."""
    user = User.with_username(username) or _refuse_recipient(_("There is nobody of this name."))
    return user if user.id != caller().id else _refuse_recipient(_("You cannot write to yourself."))


def _refuse_recipient(message: str) -> NoReturn:
    abort_invalid({"json": {"to": [message]}})


def _own(message_id: int) -> Message:
    """Return the caller's message with this id. Raises NotFound, also for a message of other users."""
    found = find_messages(caller(), [message_id])
    return found[0] if found else abort(HTTPStatus.NOT_FOUND, _("There is no such message."))
