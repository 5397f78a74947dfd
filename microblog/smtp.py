"""SMTP sessions, encrypted and verified as configured."""

from __future__ import annotations

import contextlib
import smtplib
import ssl

import flask_mail
from flask import current_app


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


def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=current_app.config["MAIL_CA_CERTS"])
