"""Mails about an account."""

from __future__ import annotations

from datetime import timedelta

from flask import current_app
from flask_babel import format_timedelta
from flask_babel import gettext as _
from flask_mail import Message

from microblog.accounts import tokens
from microblog.accounts.models import EmailChange, User
from microblog.i18n import locale_of
from microblog.mail.sending import render_email


def password_reset_email(user: User) -> Message:
    """Return the mail with a new link to set a password."""
    with locale_of(user):
        return render_email(
            "password_reset",
            to=user.email,
            subject=_("[Microblog] Set a new password"),
            user=user,
            link=tokens.password_reset_url(user),
            lifetime=link_lifetime(),
        )


def confirm_email(change: EmailChange) -> Message:
    """Return the mail to the new address with a new link, which proves that the user receives mail there."""
    with locale_of(change.user):
        return render_email(
            "confirm_address",
            to=change.new_address,
            subject=_("[Microblog] Confirm your new address"),
            user=change.user,
            link=tokens.confirm_email_url(change),
            lifetime=link_lifetime(),
        )


def email_changed_email(change: EmailChange) -> Message:
    """Return the mail to the old address, without the new one. Replies go to the first of ``ADMINS``, if any."""
    admin = next(iter(current_app.config["ADMINS"]), None)
    with locale_of(change.user):
        subject = _("[Microblog] Your mail address was changed")
        message = render_email(
            "changed_address", to=change.old_address, subject=subject, user=change.user, can_be_answered=bool(admin)
        )
    message.reply_to = admin
    return message


def account_deleted_email(user: User) -> Message:
    """Return the mail that confirms that the account is closed and its data is being deleted."""
    with locale_of(user):
        return render_email(
            "account_deleted", to=user.email, subject=_("[Microblog] Your account is deleted"), user=user
        )


def link_lifetime() -> str:
    """Return the lifetime of links in words."""
    text: str = format_timedelta(timedelta(seconds=current_app.config["ACCOUNT_LINK_LIFETIME"]))
    return text
