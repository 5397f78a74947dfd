"""The SMTP server of development stores each mail unchanged in a Maildir, which MailFolder reads."""

from __future__ import annotations

import contextlib
import os
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from mailbox import Maildir
from pathlib import Path

import pytest

from microblog.development.maildir import MailFolder
from microblog.development.process_manager import ManagedProcess
from tests.support.console import as_python_module
from tests.support.servers import TIMEOUT, free_port


@pytest.fixture(scope="module")
def maildir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mailbox") / "mail"


@pytest.fixture
def folder(maildir: Path) -> Path:
    """The Maildir, emptied."""
    for mail in maildir.glob("*/*"):
        mail.unlink()
    return maildir


@pytest.fixture(scope="module")
def port(maildir: Path) -> Iterator[int]:
    """The port of an SMTP server that stores mails in `maildir`."""
    port = free_port()
    options = ["--port", str(port), "--maildir", str(maildir)]
    command = as_python_module(["microblog.development.smtp_server", *options])
    server = ManagedProcess(command, os.environ, stdout=maildir.with_name("log"))

    def is_listening() -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            connection(port).close()
            return True
        return False

    server.wait_until(is_listening, "the SMTP server", TIMEOUT)
    yield port
    server.terminate()
    assert server.wait(TIMEOUT) == 0


@pytest.fixture
def smtp(port: int) -> Iterator[smtplib.SMTP]:
    with connection(port) as client:
        yield client


def connection(port: int) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", port, timeout=TIMEOUT)


def make_message(**headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in headers.items():
        message[name] = value
    message.set_content("Grüße\nfrom a <b>text</b>\n")
    return message


def test_accepted_mail_is_on_disk(smtp: smtplib.SMTP, folder: Path) -> None:
    posts = bytes(range(256)) * 4096
    message = make_message(Subject="Your posts ✓", From="a@example.org", To="b@example.org")
    message.add_attachment(posts, maintype="application", subtype="octet-stream", filename="posts.json")

    smtp.send_message(message)

    (stored,) = MailFolder(folder).newest(10)
    mail = MailFolder(folder).get(stored.key)
    assert mail.subject == "Your posts ✓"
    assert mail.text == "Grüße\nfrom a <b>text</b>\n"
    assert [(file.filename, file.content) for file in mail.attachments] == [("posts.json", posts)]


def test_eight_bit_mail_is_stored_unchanged(smtp: smtplib.SMTP, folder: Path) -> None:
    mail = b"Subject: raw\r\n\r\n..a dot, \xff\xfe\x80, and\ttabs\r\n\r\n"

    smtp.sendmail("a@example.org", ["b@example.org"], mail, ["BODY=8BITMIME"])

    (key,) = Maildir(folder).keys()
    assert Maildir(folder).get_bytes(key).endswith(mail.replace(b"\r\n", b"\n"))


def test_bcc_recipients_are_stored(smtp: smtplib.SMTP, folder: Path) -> None:
    recipients = ["b@example.org", "hidden@example.org"]

    smtp.send_message(make_message(Subject="x", To="b@example.org"), "a@example.org", recipients)

    message = MailFolder(folder).newest(1)[0].message
    assert message.get_all("Delivered-To") == recipients
    assert message["Return-Path"] == "<a@example.org>"


def test_non_ascii_address_is_accepted(smtp: smtplib.SMTP, folder: Path) -> None:
    smtp.send_message(make_message(Subject="x", To="grüße@example.org"), "a@example.org")

    assert MailFolder(folder).newest(1)[0].recipient == "grüße@example.org"


def test_newest_mail_is_listed_first(smtp: smtplib.SMTP, folder: Path) -> None:
    for number in range(12):
        smtp.send_message(make_message(Subject=str(number), From="a@example.org", To="b@example.org"))

    assert [stored.subject for stored in MailFolder(folder).newest(3)] == ["11", "10", "9"]
    assert len(MailFolder(folder)) == 12


def test_text_in_unknown_charset_has_replacement_characters(folder: Path) -> None:
    Maildir(folder).add(b"Subject: x\nContent-Type: text/plain; charset=klingon\n\nhi \xff\n")

    (stored,) = MailFolder(folder).newest(1)

    assert MailFolder(folder).get(stored.key).text == "hi \ufffd\n"


@pytest.mark.parametrize("key", ["1.M1P1Q0.nowhere", "../mail/new", "", "..", "new"])
def test_get_unknown_key_raises_key_error(folder: Path, key: str) -> None:
    with pytest.raises(KeyError):
        MailFolder(folder).get(key)
