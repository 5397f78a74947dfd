"""A rediss:// URL encrypts and verifies the connection of every client of Redis."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from flask import Flask

from microblog.development.process_manager import ManagedProcess
from microblog.development.servers import free_port, redis_answers, redis_command
from microblog.extensions import db, redis_client
from microblog.taskqueue.launch import launch
from microblog.taskqueue.scheduler import Scheduler
from tests.support import app_factory, external, tasks
from tests.support.clients import sign_in
from tests.support.factories import row_of, start, state_of
from tests.support.servers import TIMEOUT, Worker, wait_for

CERTIFICATES = Path(app_factory.__file__).parent / "tls"
CA = CERTIFICATES / "ca.pem"
PASSWORD = "never-in-plain-text"

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # the databases do not differ in this


@pytest.fixture
def tls_url(tmp_path: Path) -> Iterator[str]:
    """The URL of a Redis that accepts only TLS and requires a password; its certificate is signed by CA."""
    external.REDIS_WITH_TLS.require()
    port = free_port()
    command = [*redis_command(0), "--tls-port", str(port), "--requirepass", PASSWORD, "--tls-auth-clients", "no"]
    command += ["--tls-cert-file", str(CERTIFICATES / "server.pem"), "--tls-key-file", str(CERTIFICATES / "server.key")]
    server = ManagedProcess([*command, "--tls-ca-cert-file", str(CA)], os.environ, stdout=tmp_path / "redis.log")
    url = f"rediss://:{PASSWORD}@127.0.0.1:{port}/0"
    server.wait_until(lambda: redis_answers(url, {"ssl_ca_certs": str(CA)}), "redis-server", TIMEOUT)
    yield url
    server.kill()


@pytest.fixture
def make_tls_app(environment: dict[str, str], tls_url: str, contexts: contextlib.ExitStack) -> Callable[..., Flask]:
    """A function that creates an application with this server; `query` is added to the URL."""

    def make(query: str = "", **settings: str) -> Flask:
        return contexts.enter_context(
            app_factory.application(environment | {"REDIS_URL": tls_url + query} | settings, RATELIMIT_ENABLED=True)
        )

    return make


@pytest.mark.parametrize("query", ["", "?ssl_cert_reqs=none", "?ssl_cert_reqs=CERT_NONE"])
@pytest.mark.exhaustive
def test_every_client_uses_tls(
    make_tls_app: Callable[..., Flask], make_worker: Callable[..., Worker], tls_url: str, query: str
) -> None:
    settings = {} if query else {"REDIS_CA_CERTS": str(CA)}
    app = make_tls_app(query, **settings)
    make_worker(REDIS_URL=tls_url + query, **settings)

    task_id = start(tasks.add.s(1, 2))

    wait_for(lambda: state_of(task_id) == "SUCCESS", what="the broker and the result backend use TLS")
    assert app.extensions["celery"].AsyncResult(task_id).result == 3
    scheduler = Scheduler(app=app.extensions["celery"])
    scheduler.tick()
    assert scheduler.lock is not None, "RedBeat uses TLS"
    scheduler.close()
    sign_in(app.test_client())
    assert list(redis_client.connection.scan_iter(redis_client.connection.key("limits*"))), "the rate limiter uses TLS"


@pytest.mark.exhaustive
def test_unknown_certificate_is_refused(make_tls_app: Callable[..., Flask]) -> None:
    make_tls_app()

    task_id = launch(tasks.add.s(1, 2)).id
    db.session.commit()

    assert row_of(task_id).published_at is None
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        redis_client.connection.ping()
