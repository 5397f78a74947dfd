"""The mails about an account."""

from __future__ import annotations

from datetime import timedelta

from flask import current_app
from flask_babel import format_timedelta
from flask_babel import gettext as _
from flask_mail import Message

from microblog.accounts import links
from microblog.accounts.email_change import EmailChange
from microblog.accounts.models import User
from microblog.locale import addressed_to
from microblog.mail.letter import letter


def password_reset(user: User) -> Message:
    """The link to set a new password, made now."""
    with addressed_to(user):
        return letter(
            "password_reset",
            to=user.email,
            subject=_("[Microblog] Set a new password"),
            user=user,
            link=links.to_reset_password(user),
            lifetime=lifetime_of_links(),
        )


def confirm_address(change: EmailChange) -> Message:
    """The link, made now, that only who reads mails to the new address can follow."""
    with addressed_to(change.user):
        return letter(
            "confirm_address",
            to=change.new_address,
            subject=_("[Microblog] Confirm your new address"),
            user=change.user,
            link=links.to_confirm_address(change),
            lifetime=lifetime_of_links(),
        )


def changed_address(change: EmailChange) -> Message:
    """What the old address is told; not which the new one is. An answer goes to the first of ``ADMINS``, if any."""
    admin = next(iter(current_app.config["ADMINS"]), None)
    with addressed_to(change.user):
        subject = _("[Microblog] Your mail address was changed")
        message = letter(
            "changed_address", to=change.old_address, subject=subject, user=change.user, can_be_answered=bool(admin)
        )
    message.reply_to = admin
    return message


def account_deleted(user: User) -> Message:
    """That the account is closed, and everything in it being deleted."""
    with addressed_to(user):
        return letter("account_deleted", to=user.email, subject=_("[Microblog] Your account is deleted"), user=user)


def lifetime_of_links() -> str:
    """How long a link works, in words."""
    text: str = format_timedelta(timedelta(seconds=current_app.config["ACCOUNT_LINK_LIFETIME"]))
    return text
