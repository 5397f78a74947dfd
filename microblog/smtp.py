"""SMTP sessions, encrypted and verified as configured, and the encoding of mails."""

from __future__ import annotations

import contextlib
import smtplib
import ssl
from email import charset
from email.header import Header
from typing import Any

import flask_mail
from flask import Flask, current_app

LONGEST_UNFOLDED_SUBJECT = 78 - len("Subject: ")  # characters, in a line of the length that RFC 5322 recommends


class SmtpConnection(flask_mail.Connection):
    """An SMTP session with a timeout of ``MAIL_TIMEOUT`` seconds for each command.

    With TLS, the certificate of the server is verified for the name ``MAIL_SERVER``, with the certificates of the file
    ``MAIL_CA_CERTS`` or those of the system.
    """

    def configure_host(self) -> smtplib.SMTP:
        """Connect, start TLS and log in, as configured. Raises OSError or smtplib.SMTPException."""
        address, timeout = (self.mail.server, self.mail.port), current_app.config["MAIL_TIMEOUT"]
        if self.mail.use_ssl:
            host: smtplib.SMTP = smtplib.SMTP_SSL(*address, timeout=timeout, context=_tls_context())
        else:
            host = smtplib.SMTP(*address, timeout=timeout)
        try:
            if self.mail.use_tls:
                host.starttls(context=_tls_context())
            if self.mail.username and self.mail.password:
                host.login(self.mail.username, self.mail.password)
        except BaseException:
            host.close()
            raise
        return host

    def send(self, message: flask_mail.Message, envelope_from: str | tuple[str, str] | None = None) -> None:
        """Send `message`. Raises OSError or smtplib.SMTPException."""
        if len(message.subject) > LONGEST_UNFOLDED_SUBJECT or not message.subject.isascii():
            # Otherwise Flask-Mail has it folded by a generator that loses or adds spaces, at least in Python 3.11.
            message.subject = Header(message.subject, "utf-8", header_name="Subject").encode(linesep="\r\n")
        super().send(message, envelope_from)

    def __exit__(self, *error: object) -> None:
        # The server has already replied to the mail. If QUIT fails, the mail must not be treated as unsent.
        if self.host is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self.host.quit()


class Mail(flask_mail.Mail):
    """Flask-Mail with :class:`SmtpConnection`, and with mails that every server accepts: short lines of ASCII."""

    def init_app(self, app: Flask) -> Any:
        """Read the settings of `app`, and encode the texts of mails as quoted-printable."""
        # Flask-Mail registers 8-bit bodies for UTF-8, whose lines may be longer than the 998 octets of RFC 5322.
        charset.add_charset("utf-8", charset.SHORTEST, charset.QP, "utf-8")
        return super().init_app(app)

    def connect(self) -> SmtpConnection:
        """Return a connection to the configured server, for a ``with`` statement. Requires an app context."""
        return SmtpConnection(current_app.extensions["mail"])


def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=current_app.config["MAIL_CA_CERTS"])
