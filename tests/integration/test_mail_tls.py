"""TLS to the mail server is verified, after STARTTLS and from the beginning of the connection."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask_mail import Message

from microblog.extensions import mail
from tests.support.smtp import SmtpServer
from tests.support.tls import CA


@pytest.fixture(scope="module", params=["MAIL_USE_TLS", "MAIL_USE_SSL"])
def setting(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tls_server(setting: str) -> Iterator[SmtpServer]:
    server = SmtpServer(tls=setting)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_tls_app(make_app: Callable[..., Flask], tls_server: SmtpServer, setting: str) -> Callable[..., Flask]:
    """A function that creates an application with this server."""
    tls_server.reset()
    return lambda **settings: make_app(MAIL_PORT=tls_server.port, **{setting: True}, **settings)


def send() -> None:
    with mail.connect() as connection:
        connection.send(Message("Hello", ["susan@example.com"], body="Hello"))


def test_certificate_of_known_authority_is_accepted(make_tls_app: Callable[..., Flask], tls_server: SmtpServer) -> None:
    make_tls_app(MAIL_CA_CERTS=str(CA), MAIL_USERNAME="microblog", MAIL_PASSWORD="secret")

    send()

    assert [message["Subject"] for message in tls_server.messages] == ["Hello"]


def test_certificate_of_unknown_authority_is_refused(
    make_tls_app: Callable[..., Flask], tls_server: SmtpServer
) -> None:
    make_tls_app()

    with pytest.raises(ssl.SSLCertVerificationError):
        send()

    assert tls_server.messages == []
