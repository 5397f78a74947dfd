"""An SMTP server that records received mail and can simulate faults."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from tests.support.servers import free_port
from tests.support.tls import CERTIFICATE, KEY


@dataclass(frozen=True)
class Delivery:
    """An accepted mail, the client's port, and the times when its client connected and when it was accepted.

    `content` is the mail as it was received.
    """

    content: bytes
    message: EmailMessage
    port: int
    began: float
    ended: float


def _refusable(command: str) -> Callable[..., Any]:
    """Return the method that handles `command`, or refuses it."""

    async def handle(self: _Protocol, argument: str | None) -> None:
        if command in self.event_handler.held:
            self.event_handler.sessions_held += 1
        while command in self.event_handler.held:
            await asyncio.sleep(0.05)
        reply = self.event_handler.refusals.get(command)
        if reply is None:
            await getattr(SMTP, f"smtp_{command}")(self, argument)
        else:
            await self.push(reply)

    return handle


class _Protocol(SMTP):
    """SMTP that can refuse in each phase, and records when a client connected, before it checks that it may send."""

    smtp_EHLO, smtp_HELO, smtp_STARTTLS = map(_refusable, ("EHLO", "HELO", "STARTTLS"))
    smtp_AUTH, smtp_MAIL, smtp_RCPT = map(_refusable, ("AUTH", "MAIL", "RCPT"))
    _greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        vars(self.session)["began"] = time.time()

    async def push(self, status: Any) -> None:
        if not self._greeted:
            self._greeted = True
            status = self.event_handler.refusals.get("greeting", status)
        await super().push(status)


class _Controller(Controller):
    def factory(self) -> SMTP:
        return _Protocol(self.handler, **self.SMTP_kwargs)


def _tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context


class SmtpServer:
    """An SMTP server on a free port, which accepts any password; `tls` is the setting of its clients, if it offers TLS.

    `answer` replaces the reply to DATA, and `refusals` those to other commands, or the "greeting". Other commands in
    `held` get no reply as long as they are in it; `sessions_held` counts them. `drop` closes the connection instead of
    accepting a mail. While `hang` is true no reply is sent; afterwards the connection is closed without accepting the
    mail. `delay` is the number of seconds before a mail is accepted. `on_data` is called with the client's port after
    DATA.
    """

    def __init__(self, tls: str = "") -> None:
        self.port = free_port()
        self._tls = tls
        self.deliveries: list[Delivery] = []
        self._controller: Controller | None = None
        self.reset()

    @property
    def messages(self) -> list[EmailMessage]:
        """The accepted mails, in order of arrival."""
        return [delivery.message for delivery in self.deliveries]

    def start(self) -> None:
        self._controller = _Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            data_size_limit=64 * 1024 * 1024,
            ssl_context=_tls_context() if self._tls == "MAIL_USE_SSL" else None,
            tls_context=_tls_context() if self._tls == "MAIL_USE_TLS" else None,
            authenticator=lambda *_: AuthResult(success=True),
            auth_require_tls=False,
        )
        self._controller.start()

    def stop(self) -> None:
        if self._controller:
            self._controller.stop()
            self._controller = None

    def reset(self) -> None:
        """Restore the initial state."""
        self.behave()
        self.deliveries.clear()
        self.on_data: Callable[[int], None] | None = None
        self.refused = 0
        self.delay = 0.0

    def behave(self) -> None:
        """Stop simulating refusals and interruptions."""
        self.answer: str | None = None
        self.refusals: dict[str, str] = {}
        self.held: set[str] = set()
        self.sessions_held = 0
        self.drop = self.hang = False

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        port = int(session.peer[1]) if session.peer else 0
        if self.on_data is not None:
            self.on_data(port)
        hung = self.hang
        while self.hang:
            await asyncio.sleep(0.05)
        if self.drop or hung:
            return await self._drop(server)
        if self.answer is not None:
            self.refused += 1
            return self.answer
        await asyncio.sleep(self.delay)
        content = envelope.content
        assert isinstance(content, bytes)
        message = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.deliveries.append(Delivery(content, message, port, vars(session)["began"], time.time()))
        return "250 OK"

    async def _drop(self, server: SMTP) -> str:
        self.refused += 1
        transport: Any = server.transport
        transport.abort()
        await asyncio.sleep(0)
        return "451 connection aborted"
