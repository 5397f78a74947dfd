"""Flask-Mail's SMTP connection, with the time limit and the careful goodbye that a task needs."""

from __future__ import annotations

import contextlib
import smtplib

import flask_mail
from flask import current_app


class Connection(flask_mail.Connection):
    """One SMTP session, every exchange of which ends within ``MAIL_TIMEOUT`` seconds."""

    def configure_host(self) -> smtplib.SMTP | smtplib.SMTP_SSL:
        """Connect, greet and sign in. Raises OSError or smtplib.SMTPException."""
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
        # By now the server has answered for the mail. A goodbye that fails must not make a sent mail look unsent.
        if self.host is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self.host.quit()


class Mail(flask_mail.Mail):
    """Flask-Mail, handing out :class:`Connection`."""

    def connect(self) -> Connection:
        """A connection to the configured server, for a ``with`` statement; must run in an app context."""
        return Connection(current_app.extensions["mail"])
