"""/dev/mail: mails that the running system has sent."""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from pathlib import Path

from flask import Blueprint, Response, abort, current_app, render_template, send_file

from microblog.development.maildir import MailFolder, StoredMail

LETTERS_SHOWN = 100
# Nothing in a mail may run, load or send; and only our own page may frame it.
HTML_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"

blueprint = Blueprint("development", __name__, url_prefix="/dev/mail")


@blueprint.get("")
def mails() -> str:
    """The newest mails."""
    letters = _letters()
    return render_template(
        "development/mails.html",
        letters=letters.newest(LETTERS_SHOWN),
        count=len(letters),
        shown=LETTERS_SHOWN,
    )


@blueprint.get("/<key>")
def mail(key: str) -> str:
    """One mail."""
    return render_template("development/mail.html", letter=_letter_or_404(key))


@blueprint.get("/<key>/html")
def html(key: str) -> Response:
    """The HTML part of a mail, for the frame in its page."""
    content = _letter_or_404(key).html
    if content is None:
        abort(HTTPStatus.NOT_FOUND)
    headers = {"Content-Security-Policy": HTML_POLICY, "X-Frame-Options": "SAMEORIGIN"}
    return Response(content, mimetype="text/html", headers=headers)


@blueprint.get("/<key>/attachments/<int:number>")
def attachment(key: str, number: int) -> Response:
    """A file that came with a mail; the first has number 1."""
    attachments = _letter_or_404(key).attachments
    if not 0 < number <= len(attachments):
        abort(HTTPStatus.NOT_FOUND)
    file = attachments[number - 1]
    return send_file(BytesIO(file.content), file.content_type, as_attachment=True, download_name=file.filename)


def _letters() -> MailFolder:
    return MailFolder(Path(current_app.instance_path) / "mail")


def _letter_or_404(key: str) -> StoredMail:
    try:
        return _letters().get(key)
    except KeyError:
        abort(HTTPStatus.NOT_FOUND)
