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

from microblog.development.environment import ADDRESS

LARGEST_MAIL = 50 * 1024 * 1024  # bytes


class Keeper:
    """The part of the server that takes a mail once it is there."""

    def __init__(self, folder: Path) -> None:
        """Keep mails in the Maildir `folder`, which is made if it is missing."""
        self._maildir = mailbox.Maildir(folder)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep the mail, and return what the sender is told: once it is on disk, or that it could not be."""
        content = envelope.original_content or b""
        try:
            self._maildir.add(_envelope_lines(envelope) + content.replace(b"\r\n", b"\n"))
        except OSError as error:
            return f"451 The mail could not be kept: {error.strerror}"
        return "250 Kept"


def _envelope_lines(envelope: Envelope) -> bytes:
    """Return the sender and the recipients of the envelope as header lines, as a mail server adds them at delivery."""
    recipients = [f"Delivered-To: {address}\n" for address in envelope.rcpt_tos]
    return "".join([f"Return-Path: <{envelope.mail_from}>\n", *recipients]).encode("utf-8", "surrogateescape")


async def serve(folder: Path, port: int) -> None:
    """Accept mail on the loopback `port` until SIGINT or SIGTERM. Raises OSError if the port is taken."""
    keeper = Keeper(folder)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(
        lambda: SMTP(keeper, data_size_limit=LARGEST_MAIL, enable_SMTPUTF8=True, loop=loop), ADDRESS, port
    )
    await stop.wait()
    server.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Accept every mail and keep it in a Maildir.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--maildir", type=Path, required=True)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.maildir, arguments.port))


if __name__ == "__main__":
    main()
