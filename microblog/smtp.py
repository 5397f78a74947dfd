"""SMTP sessions: their encryption, the encoding of their mails, and the meaning of their failures.

The phase of a session that fails decides together with the reply of the server: most failures are about this site, and
pass once the server or a setting is corrected; only a recipient or a mail may be refused for good. ``RULES`` has the
details.
"""

from __future__ import annotations

import contextlib
import enum
import re
import smtplib
import ssl
from email import charset
from email.header import Header
from typing import Any, NamedTuple

import flask_mail
from flask import Flask, current_app

LONGEST_UNFOLDED_SUBJECT = 78 - len("Subject: ")  # characters, in a line of the length that RFC 5322 recommends


class Phase(enum.StrEnum):
    """The phases of a session, in their order."""

    CONNECTION = "connection"
    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    CERTIFICATE = "certificate"
    AUTH = "AUTH"
    MAIL = "MAIL FROM"
    RCPT = "RCPT TO"
    DATA = "DATA"


class Rule(NamedTuple):
    """The meaning of a failure in one of `phases` whose reply matches the regular expression `reply` at its beginning.

    `check` names, for operators, the settings that are likely wrong; it is empty if the failure is about the recipient
    or the mail. After a `final` failure, the mail is not tried again.
    """

    phases: tuple[Phase, ...]
    reply: str
    check: str = ""
    final: bool = False


_CREDENTIALS = "MAIL_USERNAME, MAIL_PASSWORD and MAIL_USE_TLS"
_TRANSACTION = (Phase.MAIL, Phase.RCPT, Phase.DATA)
# Replies about this site that come as late as RCPT TO or DATA, with enhanced codes (RFC 3463) or without.
_ABOUT_SITE = r"5\d\d 5\.(1\.[78]|7\.2\d)|.*\b(relay|relaying|sender|helo|client host|not verified)\b"
#: The first rule that matches decides.
RULES = (
    Rule((Phase.CONNECTION, Phase.GREETING), "", "MAIL_SERVER, MAIL_PORT and MAIL_USE_SSL"),
    Rule((Phase.EHLO,), "", "the host name of this machine"),
    Rule((Phase.STARTTLS,), "", "MAIL_USE_TLS"),
    Rule((Phase.CERTIFICATE,), "", "MAIL_SERVER and MAIL_CA_CERTS"),
    Rule((Phase.AUTH,), "", _CREDENTIALS),
    Rule(_TRANSACTION, "53", _CREDENTIALS),
    Rule((Phase.RCPT, Phase.DATA), r"[45]52 [45]\.2\.2"),  # the mailbox of the recipient is full
    Rule(_TRANSACTION, "[45]52", "EXPORT_ATTACHMENT_LIMIT and the quota of MAIL_USERNAME"),
    Rule((Phase.MAIL,), "", "MAIL_DEFAULT_SENDER"),
    Rule((Phase.RCPT,), r"5\d\d 5\.[57]\.", "MAIL_DEFAULT_SENDER, MAIL_USERNAME and MAIL_PASSWORD"),
    Rule((Phase.RCPT, Phase.DATA), _ABOUT_SITE, "MAIL_DEFAULT_SENDER, MAIL_USERNAME and MAIL_PASSWORD"),
    Rule((Phase.RCPT, Phase.DATA), "5", final=True),
    Rule((Phase.RCPT, Phase.DATA), ""),
)
# Of errors that occur in one phase only.
_PHASES: dict[type[OSError], Phase] = {
    smtplib.SMTPConnectError: Phase.GREETING,
    smtplib.SMTPHeloError: Phase.EHLO,
    ssl.SSLCertVerificationError: Phase.CERTIFICATE,
    smtplib.SMTPSenderRefused: Phase.MAIL,
    smtplib.SMTPRecipientsRefused: Phase.RCPT,
    smtplib.SMTPDataError: Phase.DATA,
}


def rule_for(phase: Phase, reply: str) -> Rule:
    """Return the rule for a failure in `phase` with `reply`: its code and its text, in one line."""
    reply = re.sub(r"\S+@\S+", "", reply)  # an address may contain the words that are looked for
    return next(rule for rule in RULES if phase in rule.phases and re.match(rule.reply, reply, re.IGNORECASE))


class Failure(NamedTuple):
    """The failure of a session: the reply of the server, or the text of the error, and its meaning."""

    phase: Phase
    reply: str
    rule: Rule


class SmtpConnection(flask_mail.Connection):
    """An SMTP session with a timeout of ``MAIL_TIMEOUT`` seconds for each command.

    With TLS, the certificate of the server is verified for the name ``MAIL_SERVER``, with the certificates of the file
    ``MAIL_CA_CERTS`` or those of the system.
    """

    _phase = Phase.CONNECTION  # the current one, as far as the class of an error does not tell it

    def configure_host(self) -> smtplib.SMTP:
        """Connect, start TLS and log in, as configured. Raises OSError or smtplib.SMTPException."""
        self._phase = Phase.CONNECTION
        address, timeout = (self.mail.server, self.mail.port), current_app.config["MAIL_TIMEOUT"]
        if self.mail.use_ssl:
            host: smtplib.SMTP = smtplib.SMTP_SSL(*address, timeout=timeout, context=_tls_context())
        else:
            host = smtplib.SMTP(*address, timeout=timeout)
        try:
            if self.mail.use_tls:
                self._phase = Phase.STARTTLS
                host.starttls(context=_tls_context())
            if self.mail.username and self.mail.password:
                self._phase = Phase.AUTH
                host.login(self.mail.username, self.mail.password)
        except BaseException:
            host.close()
            raise
        self._phase = Phase.CONNECTION  # which may get lost
        return host

    def send(self, message: flask_mail.Message, envelope_from: str | tuple[str, str] | None = None) -> None:
        """Send `message`. Raises OSError or smtplib.SMTPException."""
        if len(message.subject) > LONGEST_UNFOLDED_SUBJECT or not message.subject.isascii():
            # Otherwise Flask-Mail has it folded by a generator that loses or adds spaces, at least in Python 3.11.
            message.subject = Header(message.subject, "utf-8", header_name="Subject").encode(linesep="\r\n")
        super().send(message, envelope_from)

    def failure(self, error: OSError) -> Failure:
        """Return the failure of the session that has ended with `error`, an OSError or smtplib.SMTPException.

        If all of several recipients were refused, it is one that is not final, if there is any.
        """
        phase = _PHASES.get(type(error), self._phase)
        failures = [Failure(phase, reply, rule_for(phase, reply)) for reply in _replies(error)]
        return min(failures, key=lambda failure: failure.rule.final)

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


def _replies(error: OSError) -> list[str]:
    """Return the replies of the server that led to `error`, one for each recipient, otherwise the text of `error`."""
    match error:
        case smtplib.SMTPRecipientsRefused():
            return [_reply(*refusal) for refusal in error.recipients.values()]
        case smtplib.SMTPResponseException():
            return [_reply(error.smtp_code, error.smtp_error)]
        case _:
            return [str(error)]


def _reply(code: int, text: bytes | str) -> str:
    """Return a reply as one line."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(text.split())}"
