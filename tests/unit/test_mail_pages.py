"""/dev/mail: shows sent mail, runs no content of a mail, and exists in development only."""

from __future__ import annotations

from email.message import EmailMessage
from mailbox import Maildir
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from microblog import create_app

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    return application("development", tmp_path, monkeypatch).test_client()


def application(environment: str, instance: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    monkeypatch.setenv("MICROBLOG_ENV", environment)
    monkeypatch.setenv("SECRET_KEY", "a key for this test alone")
    monkeypatch.setenv("INSTANCE_PATH", str(instance))
    monkeypatch.setenv("RATELIMIT_ENABLED", "false")  # there is no Redis
    return create_app()


@pytest.fixture
def key(tmp_path: Path) -> str:
    message = EmailMessage()
    message["Subject"] = f"Your posts {HOSTILE}"
    message["From"] = "Microblog <no-reply@example.org>"
    message["To"] = "demo@example.org"
    message.set_content(f"See https://example.org/x\n{HOSTILE}\n")
    message.add_alternative(f"<p>Hello</p>{HOSTILE}", subtype="html")
    message.add_attachment(b'{"posts": []}', maintype="application", subtype="json", filename="posts.json")
    message.add_attachment(b"<p>", maintype="text", subtype="html", filename="ünsafe.html")
    return Maildir(tmp_path / "mail").add(message.as_bytes())


def test_list_links_to_each_mail(client: FlaskClient, key: str) -> None:
    page = client.get("/dev/mail")

    assert page.status_code == 200
    assert f'href="/dev/mail/{key}"' in page.text
    assert "demo@example.org" in page.text
    assert HOSTILE not in page.text


def test_list_of_empty_mailbox(client: FlaskClient) -> None:
    page = client.get("/dev/mail")

    assert page.status_code == 200
    assert "No mail yet." in page.text


def test_mail_shows_headers_text_and_sandboxed_frame(client: FlaskClient, key: str) -> None:
    page = client.get(f"/dev/mail/{key}").text

    assert "Microblog &lt;no-reply@example.org&gt;" in page
    assert '<a href="https://example.org/x"' in page
    assert f'src="/dev/mail/{key}/html"' in page
    assert "<iframe sandbox " in page
    assert HOSTILE not in page


def test_html_part_is_sandboxed(client: FlaskClient, key: str) -> None:
    part = client.get(f"/dev/mail/{key}/html")

    policy = part.headers["Content-Security-Policy"].split("; ")
    assert part.mimetype == "text/html"
    assert "<p>Hello</p>" in part.text
    assert {"sandbox", "default-src 'none'"} <= set(policy)
    assert not any(rule.startswith("script-src") for rule in policy)


@pytest.mark.parametrize(
    ("number", "content", "disposition"),
    [
        (1, b'{"posts": []}', "attachment; filename=posts.json"),
        (2, b"<p>", "attachment; filename=unsafe.html; filename*=UTF-8''%C3%BCnsafe.html"),
    ],
)
def test_attachment_is_downloaded(client: FlaskClient, key: str, number: int, content: bytes, disposition: str) -> None:
    download = client.get(f"/dev/mail/{key}/attachments/{number}")

    assert download.data == content
    assert download.headers["Content-Disposition"] == disposition


@pytest.mark.parametrize(
    "path", ["nobody", "nobody/html", "nobody/attachments/1", "{key}/attachments/0", "{key}/attachments/3"]
)
def test_unknown_mail_or_attachment_is_not_found(client: FlaskClient, key: str, path: str) -> None:
    assert client.get("/dev/mail/" + path.format(key=key)).status_code == 404


def test_plain_text_mail_has_no_html_part(client: FlaskClient, tmp_path: Path) -> None:
    key = Maildir(tmp_path / "mail").add(b"Subject: plain\n\ntext\n")

    assert client.get(f"/dev/mail/{key}").status_code == 200
    assert client.get(f"/dev/mail/{key}/html").status_code == 404


@pytest.mark.parametrize("environment", ["production", "testing"])
def test_mail_pages_exist_in_development_only(
    environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    client = application(environment, tmp_path, monkeypatch).test_client()

    assert client.get("/dev/mail").status_code == 404
    assert client.get(f"/dev/mail/{key}").status_code == 404
