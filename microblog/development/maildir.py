"""Read the Maildir of the development SMTP server, for /dev/mail."""

from __future__ import annotations

import mailbox
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from functools import cached_property
from pathlib import Path

HEADER_SPACE = 64 * 1024  # bytes at the start of a mail that are read for its headers
SHOWN_HEADERS = ("From", "To", "Cc", "Reply-To", "Subject", "Date", "Message-ID", "Delivered-To")


@dataclass(frozen=True)
class Attachment:
    """An attached file."""

    filename: str
    content_type: str
    content: bytes


@dataclass(frozen=True)
class StoredMail:
    """One mail: `key` is its key in the Maildir, `received_at` the time it was stored (aware, UTC)."""

    key: str
    received_at: datetime
    message: EmailMessage

    @property
    def subject(self) -> str:
        return str(self.message.get("Subject", ""))

    @property
    def sender(self) -> str:
        return str(self.message.get("From", ""))

    @property
    def recipient(self) -> str:
        return str(self.message.get("To", ""))

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        """The headers in ``SHOWN_HEADERS`` that the mail has, as pairs of name and value."""
        return [(name, str(value)) for name in SHOWN_HEADERS for value in self.message.get_all(name, [])]

    @cached_property
    def text(self) -> str | None:
        """The text part, or None."""
        return _text(self.message.get_body(("plain",)))

    @cached_property
    def html(self) -> str | None:
        """The HTML part, or None. It is untrusted."""
        return _text(self.message.get_body(("html",)))

    @cached_property
    def attachments(self) -> list[Attachment]:
        """The attached files, in order."""
        parts = self.message.iter_attachments()
        return [
            Attachment(part.get_filename() or f"part-{number}", part.get_content_type(), _content(part))
            for number, part in enumerate(parts, 1)
        ]


class MailFolder:
    """The mails in a Maildir."""

    def __init__(self, folder: Path) -> None:
        self._maildir = mailbox.Maildir(folder)

    def __len__(self) -> int:
        return len(self._maildir)

    def newest(self, limit: int) -> list[StoredMail]:
        """Return the last `limit` mails, newest first, with their headers only."""
        keys = sorted(self._maildir.keys(), key=_stored_at, reverse=True)
        return [self._read(key, HEADER_SPACE) for key in keys[:limit]]

    def get(self, key: str) -> StoredMail:
        """Return the whole mail. Raises KeyError if it does not exist."""
        return self._read(key)

    def _read(self, key: str, size: int | None = None) -> StoredMail:
        with self._maildir.get_file(key) as file:
            message = message_from_bytes(file.read(size), policy=policy.default)
        seconds, microseconds = _stored_at(key)
        received_at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)
        return StoredMail(key, received_at, message)


def _stored_at(key: str) -> tuple[int, int]:
    """Return the time at the start of a Maildir key: seconds since 1970 and microseconds."""
    match = re.match(r"(\d{1,11})(?:\.M(\d{1,6})(?!\d))?", key)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def _text(part: MIMEPart | None) -> str | None:
    if part is None:
        return None
    try:
        return str(part.get_content())
    except LookupError:  # a charset that Python does not know
        return _content(part).decode(errors="replace")


def _content(part: MIMEPart) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else part.as_bytes()
