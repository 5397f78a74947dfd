"""SMTP server for development: accepts every mail and stores it in a Maildir.

`python -m microblog.development.smtp_server --port 2525 --maildir instance/mail`
"""

from __future__ import annotations

import argparse
import asyncio
import mailbox
import signal
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from microblog.development.environment import HOST

LARGEST_MAIL = 50 * 1024 * 1024  # bytes


class MaildirHandler:
    """aiosmtpd handler that stores each mail."""

    def __init__(self, folder: Path) -> None:
        """Store mails in the Maildir `folder`, which is created if it does not exist."""
        self._maildir = mailbox.Maildir(folder)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Store the mail, and return the reply: 250 once it is on disk, 451 if it cannot be stored."""
        content = envelope.original_content or b""
        try:
            self._maildir.add(_envelope_lines(envelope) + content.replace(b"\r\n", b"\n"))
        except OSError as error:
            return f"451 The mail could not be stored: {error.strerror}"
        return "250 Stored"


def _envelope_lines(envelope: Envelope) -> bytes:
    """Return sender and recipients of the envelope as the header lines that a mail server adds at delivery."""
    recipients = [f"Delivered-To: {address}\n" for address in envelope.rcpt_tos]
    return "".join([f"Return-Path: <{envelope.mail_from}>\n", *recipients]).encode("utf-8", "surrogateescape")


async def serve(folder: Path, port: int) -> None:
    """Accept mail on the loopback `port` until SIGINT or SIGTERM. Raises OSError if the port is in use."""
    handler = MaildirHandler(folder)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(
        lambda: SMTP(handler, data_size_limit=LARGEST_MAIL, enable_SMTPUTF8=True, loop=loop), HOST, port
    )
    await stop.wait()
    server.close()


def main() -> None:
    """Parse the command line and run the server."""
    parser = argparse.ArgumentParser(description="Accept every mail and store it in a Maildir.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--maildir", type=Path, required=True)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.maildir, arguments.port))


if __name__ == "__main__":
    main()
