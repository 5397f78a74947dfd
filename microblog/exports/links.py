"""Links to an archive that are good for a while, and only for its owner."""

from __future__ import annotations

from flask import current_app
from itsdangerous import BadSignature, SignatureExpired, URLSafeTimedSerializer

from microblog.exports.models import Archive


class LinkExpired(Exception):
    """The link was genuine, and is too old."""


class LinkForged(Exception):
    """The link was not made here, or not for this archive."""


def external(archive: Archive) -> str:
    """The absolute URL that a mail carries."""
    token = _serializer().dumps(archive.id)
    return f"{current_app.config['PUBLIC_URL']}/exports/{archive.id}/download?token={token}"


def check(archive_id: str, token: str) -> None:
    """Return if `token` is a live one for the archive; raises LinkExpired or LinkForged."""
    try:
        signed = _serializer().loads(token, max_age=current_app.config["EXPORT_LINK_LIFETIME"])
    except SignatureExpired:
        raise LinkExpired from None
    except BadSignature:
        raise LinkForged from None
    if signed != archive_id:
        raise LinkForged


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(current_app.config["SECRET_KEY"], salt="archive-link")
