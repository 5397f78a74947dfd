"""Mails have short lines of ASCII, which every mail server accepts, whatever their language and length."""

from __future__ import annotations

from email.message import EmailMessage

import pytest
from flask import Flask
from flask_babel import force_locale
from flask_mail import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config import LANGUAGES
from microblog.clock import utcnow
from microblog.error_reports.models import ErrorReport
from microblog.error_reports.tasks import report_email
from microblog.extensions import mail
from tests.support.smtp import SmtpServer

LONGEST_LINE = 998  # octets, by RFC 5322
LONGEST_LINE_OF_BODY = 76  # by RFC 2045

LONG_WORD = "x" * 3000
LETTERS = st.characters(exclude_categories=["C", "Z"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=3000)
SUBJECTS = st.lists(st.text(LETTERS, min_size=1, max_size=100), min_size=1, max_size=10).map(" ".join)
RECIPIENTS = st.lists(st.from_regex(r"[a-z]{1,30}@[a-z]{1,30}\.example", fullmatch=True), min_size=1, max_size=30)


def sent(server: SmtpServer, message: Message) -> EmailMessage:
    """Send a mail, check its encoding, and return it as the server has received it."""
    with mail.connect() as connection:
        connection.send(message)
    delivery = server.deliveries.pop()
    assert delivery.content.isascii()
    lines = delivery.content.split(b"\r\n")
    body = lines[lines.index(b"") :]
    assert max(map(len, lines)) <= LONGEST_LINE
    assert max(map(len, body)) <= LONGEST_LINE_OF_BODY
    return delivery.message


def text_of(message: EmailMessage, kind: str) -> str:
    part = message.get_body([kind])
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


@pytest.mark.exhaustive
@pytest.mark.parametrize("database", ["sqlite"])
def test_any_text_arrives_unchanged(app: Flask, smtp_server: SmtpServer) -> None:
    @given(TEXTS, SUBJECTS, RECIPIENTS)
    @example(LONG_WORD, "a/" * 150, ["susan@example.com"])
    @example(f".\n..{LONG_WORD}\n.\n", " ".join(["Ваши записи"] * 20), ["susan@example.com"])
    @example("보관 파일이 준비되었습니다. " * 200, "보관" * 100, ["susan@example.com"])
    @settings(deadline=None, max_examples=100)
    def check(text: str, subject: str, recipients: list[str]) -> None:
        message = Message(subject, [*recipients], body=text, html=f"<p>{text}</p>")
        message.attach("posts.json", "application/json", text.encode())

        received = sent(smtp_server, message)

        assert received["Subject"] == subject
        addresses = {address.addr_spec for address in received["To"].addresses}
        assert addresses == set(recipients)
        assert (text_of(received, "plain"), text_of(received, "html")) == (text, f"<p>{text}</p>")
        assert [part.get_content() for part in received.iter_attachments()] == [text.encode()]

    check()


@pytest.mark.parametrize("language", LANGUAGES)
def test_report_with_a_long_line_arrives_unchanged(app: Flask, smtp_server: SmtpServer, language: str) -> None:
    app.config["ADMINS"] = ["root@example.com"]
    trace = f"[SQL: SELECT {', '.join(f'post.column_{n}' for n in range(1000))} WHERE body = 'Ошибка 오류']"
    place = "microblog/posts/services.py:1 in " + "f" * 200
    report = ErrorReport(exception="x.Error", place=place, traceback=trace, suppressed=2, created_at=utcnow())
    report.method, report.path = "POST", "/"

    with force_locale(language):
        message = report_email(report)
    subject = message.subject

    received = sent(smtp_server, message)

    assert received["Subject"] == subject
    assert text_of(received, "plain") == message.body
    assert trace in text_of(received, "plain")
