"""A mail is a template's two faces, text and HTML, and a recipient."""

from __future__ import annotations

from typing import Any

from flask import render_template
from flask_mail import Message


def letter(template: str, *, to: str, subject: str, **context: Any) -> Message:
    """The mail that ``templates/mail/<template>.txt`` and ``.html`` make of `context`, in the language in force."""
    return Message(
        subject=subject,
        recipients=[to],
        body=render_template(f"mail/{template}.txt", **context),
        html=render_template(f"mail/{template}.html", **context),
        extra_headers={"Auto-Submitted": "auto-generated"},
    )
