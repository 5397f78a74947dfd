"""The mail that brings an archive."""

from __future__ import annotations

from flask import current_app
from flask_babel import gettext as _
from flask_mail import Message

from microblog.accounts.models import User
from microblog.exports import links
from microblog.exports.archive import FILE_NAME
from microblog.exports.models import Archive
from microblog.exports.storage import current_storage
from microblog.locale import addressed_to
from microblog.mail.letter import letter


def archive_letter(user: User, archive: Archive) -> Message:
    """The archive for `user`: attached up to ``EXPORT_ATTACHMENT_LIMIT`` bytes, else as a link that expires."""
    attached = archive.size <= current_app.config["EXPORT_ATTACHMENT_LIMIT"]
    with addressed_to(user):
        message = letter(
            "exported_posts",
            to=user.email,
            subject=_("[Microblog] Your blog posts"),
            user=user,
            archive=archive,
            link=None if attached else links.external(archive),
            link_days=current_app.config["EXPORT_LINK_LIFETIME"] // (24 * 3600),
        )
    if attached:
        with current_storage().open(archive.path) as file:
            message.attach(FILE_NAME, "application/json", file.read())
    return message
