"""SMTP sessions."""

from __future__ import annotations

import contextlib
import smtplib

import flask_mail
from flask import current_app


class SmtpConnection(flask_mail.Connection):
    """An SMTP session with a timeout of ``MAIL_TIMEOUT`` seconds for each command."""

    def configure_host(self) -> smtplib.SMTP | smtplib.SMTP_SSL:
        """Connect, start TLS and log in, as configured. Raises OSError or smtplib.SMTPException."""
        smtp = smtplib.SMTP_SSL if self.mail.use_ssl else smtplib.SMTP
        host = smtp(self.mail.server, self.mail.port, timeout=current_app.config["MAIL_TIMEOUT"])
        try:
            if self.mail.use_tls:
                host.starttls()
            if self.mail.username and self.mail.password:
                host.login(self.mail.username, self.mail.password)
        except BaseException:
            host.close()
            raise
        return host

    def __exit__(self, *error: object) -> None:
        # The server has already replied to the mail. If QUIT fails, the mail must not be treated as unsent.
        if self.host is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self.host.quit()


class Mail(flask_mail.Mail):
    """Flask-Mail with :class:`SmtpConnection`."""

    def connect(self) -> SmtpConnection:
        """Return a connection to the configured server, for a ``with`` statement. Requires an app context."""
        return SmtpConnection(current_app.extensions["mail"])
