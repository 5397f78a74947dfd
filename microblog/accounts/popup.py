"""The card of a user, which opens where their name is hovered or focused."""

from __future__ import annotations

from flask import render_template, request
from flask.typing import ResponseReturnValue
from flask_login import current_user, login_required

from microblog.accounts import followers
from microblog.accounts.directory import user_called
from microblog.accounts.routes import bp


@bp.get("/user/<username>/popup")
@login_required
def popup(username: str) -> ResponseReturnValue:
    """A user in a few words: a page, or with ``part=card`` the piece of HTML that an open page shows."""
    user = user_called(username)
    return render_template(
        "accounts/_card.html" if request.args.get("part") == "card" else "accounts/popup.html",
        user=user,
        counts=followers.counts(user),
        following=user != current_user and followers.is_following(current_user, user),
    )
