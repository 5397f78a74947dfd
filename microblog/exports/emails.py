"""The mail with the archive, and its download link, which expires and works only for the owner."""

from __future__ import annotations

from flask import current_app
from flask_babel import gettext as _
from flask_mail import Message

from microblog.accounts.models import User
from microblog.exports.archive import CONTENT_TYPE, FILE_NAME, archive_storage
from microblog.exports.models import Archive
from microblog.i18n import locale_of
from microblog.mail.sending import render_email
from microblog.security import sign

LINK = "archive-link"  # the purpose of the links' signature


def download_url(archive: Archive) -> str:
    """Return the absolute URL for a mail, with a signed token."""
    return f"{current_app.config['PUBLIC_URL']}/exports/{archive.id}/download?token={sign(LINK, archive.id)}"


def archive_email(user: User, archive: Archive) -> Message:
    """Return the mail with the archive: attached up to ``EXPORT_ATTACHMENT_LIMIT`` bytes, else as an expiring link."""
    attached = archive.size <= current_app.config["EXPORT_ATTACHMENT_LIMIT"]
    with locale_of(user):
        message = render_email(
            "exported_posts",
            to=user.email,
            subject=_("[Microblog] Your blog posts"),
            user=user,
            archive=archive,
            link=None if attached else download_url(archive),
            link_days=current_app.config["EXPORT_LINK_LIFETIME"] // (24 * 3600),
        )
    if attached:
        with archive_storage().open(archive.path) as file:
            message.attach(FILE_NAME, CONTENT_TYPE, file.read())
    return message
