"""An SMTP server that keeps what it gets, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import email
import email.policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.support.services import free_port


class SmtpServer:
    """Accepts mail on a free port. `answer` replaces the reply to DATA; `drop` ends the connection before it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.messages: list[EmailMessage] = []
        self.answer: str | None = None
        self.drop = False
        self.refused = 0
        self._controller: Controller | None = None

    def start(self) -> None:
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port, data_size_limit=64 * 1024 * 1024)
        self._controller.start()

    def stop(self) -> None:
        if self._controller:
            self._controller.stop()
            self._controller = None

    def reset(self) -> None:
        """As new."""
        self.messages.clear()
        self.answer, self.drop, self.refused = None, False, 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.drop:
            self.refused += 1
            transport: Any = server.transport
            transport.abort()
            await asyncio.sleep(0)
            return "451 never read"
        if self.answer is not None:
            self.refused += 1
            return self.answer
        content = envelope.content
        assert isinstance(content, bytes)
        message = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        return "250 kept"
