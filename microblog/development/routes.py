"""/dev/mail: the mails that the running system has sent."""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from pathlib import Path

from flask import Blueprint, Response, abort, current_app, render_template, send_file

from microblog.development.maildir import MailFolder, StoredMail

MAILS_SHOWN = 100
# A mail may not run scripts, load resources or send forms, and only a page of this site may frame it.
HTML_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"

blueprint = Blueprint("development", __name__, url_prefix="/dev/mail")


@blueprint.get("")
def mails() -> str:
    """List the newest mails."""
    folder = _mail_folder()
    return render_template(
        "development/mails.html",
        mails=folder.newest(MAILS_SHOWN),
        count=len(folder),
        shown=MAILS_SHOWN,
    )


@blueprint.get("/<key>")
def mail(key: str) -> str:
    """Show one mail."""
    return render_template("development/mail.html", mail=_mail_or_404(key))


@blueprint.get("/<key>/html")
def html(key: str) -> Response:
    """Return the HTML part of a mail, for the frame in its page."""
    content = _mail_or_404(key).html
    if content is None:
        abort(HTTPStatus.NOT_FOUND)
    headers = {"Content-Security-Policy": HTML_POLICY, "X-Frame-Options": "SAMEORIGIN"}
    return Response(content, mimetype="text/html", headers=headers)


@blueprint.get("/<key>/attachments/<int:number>")
def attachment(key: str, number: int) -> Response:
    """Download an attachment; the first has number 1."""
    attachments = _mail_or_404(key).attachments
    if not 0 < number <= len(attachments):
        abort(HTTPStatus.NOT_FOUND)
    file = attachments[number - 1]
    return send_file(BytesIO(file.content), file.content_type, as_attachment=True, download_name=file.filename)


def _mail_folder() -> MailFolder:
    return MailFolder(Path(current_app.instance_path) / "mail")


def _mail_or_404(key: str) -> StoredMail:
    try:
        return _mail_folder().get(key)
    except KeyError:
        abort(HTTPStatus.NOT_FOUND)
