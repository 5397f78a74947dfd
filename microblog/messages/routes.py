"""Pages for reading and writing private messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext as _
from flask_login import current_user, login_required

from microblog.accounts.models import User
from microblog.accounts.services import get_user_or_404
from microblog.messages.forms import MessageForm
from microblog.messages.models import Message
from microblog.messages.services import (
    RecipientUnavailable,
    delete_message,
    find_messages,
    mark_messages_read,
    messages_between,
    messages_received_by,
    messages_sent_by,
    send_message,
)
from microblog.pagination import Page, PageRequest, requested_page
from microblog.rate_limits import limit_user
from microblog.security import local_path, referring_path
from microblog.validators import ID_CONVERTER

bp = Blueprint("messages", __name__)


@bp.route("/send_message/<username>", methods=["GET", "POST"])
@login_required
@limit_user("RATELIMIT_MESSAGE", methods=["POST"])
def conversation(username: str) -> ResponseReturnValue:
    """Show the messages between the current user and another, and send a message."""
    other = get_user_or_404(username)
    if other == current_user:
        flash(_("You cannot write to yourself."), "warning")
        return redirect(url_for("messages.received"))
    form = MessageForm()
    if form.validate_on_submit():
        url = url_for("messages.conversation", username=other.username)
        _send(other, form.body)
        flash(_("Your message is sent."), "success")
        return redirect(url)
    page, new = _read_page(lambda requested: messages_between(current_user, other, requested))
    status = 422 if form.is_submitted() else 200
    return render_template("messages/conversation.html", form=form, other=other, page=page, new=new), status


@bp.get("/messages")
@login_required
def received() -> ResponseReturnValue:
    """List received messages, and mark those shown as read."""
    page, new = _read_page(lambda requested: messages_received_by(current_user, requested))
    return render_template("messages/index.html", page=page, new=new, empty=_("Nobody has written to you yet."))


@bp.get("/messages/sent")
@login_required
def sent() -> ResponseReturnValue:
    """List sent messages."""
    page = messages_sent_by(current_user, requested_page())
    return render_template("messages/index.html", page=page, new=(), empty=_("You have not written to anybody yet."))


@bp.get(f"/messages/<{ID_CONVERTER}:message_id>/delete")
@login_required
def confirm_delete(message_id: int) -> ResponseReturnValue:
    """Ask for confirmation before deleting a message."""
    found = find_messages(current_user, [message_id]) or _not_found()
    return render_template("messages/delete.html", message=found[0], next_path=referring_path())


@bp.post(f"/messages/<{ID_CONVERTER}:message_id>/delete")
@login_required
def delete(message_id: int) -> ResponseReturnValue:
    """Delete a message for the current user only, and redirect to the list that contained it (``next``)."""
    if not delete_message(current_user, message_id):
        _not_found()
    flash(_("The message is deleted for you."), "success")
    return redirect(local_path(request.form.get("next")) or url_for("messages.received"))


def _not_found() -> NoReturn:
    abort(404, _("There is no such message."))


def _send(recipient: User, body: str) -> None:
    try:
        send_message(current_user, recipient, body)
    except RecipientUnavailable:
        abort(404, _("There is nobody of this name."))


def _read_page(query: Callable[[PageRequest], Page[Message]]) -> tuple[Page[Message], set[int]]:
    """Return the requested page, and the ids of its messages that the user sees for the first time."""
    requested = requested_page()
    page = query(requested)
    new = mark_messages_read(current_user, page.items)
    return (query(requested) if new else page), new  # the commit has expired the objects of the first query
