"""A rediss:// or sentinels:// URL encrypts and verifies the connection of every client of Redis."""

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
from tests.support.sentinel import SENTINEL_GROUP, SentinelServer
from tests.support.servers import TIMEOUT, Worker, wait_for
from tests.support.tls import CA, CERTIFICATE, KEY

PASSWORD = "never-in-plain-text"
OPTIONS = ["--tls-cert-file", str(CERTIFICATE), "--tls-key-file", str(KEY)]
OPTIONS += ["--tls-ca-cert-file", str(CA), "--tls-auth-clients", "no"]

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # the databases do not differ in this


@pytest.fixture
def server_port(tmp_path: Path) -> Iterator[int]:
    """The port of a Redis that accepts only TLS and requires a password; its certificate is signed by CA."""
    external.REDIS_WITH_TLS.require()
    port = free_port()
    command = [*redis_command(0), "--tls-port", str(port), "--requirepass", PASSWORD, *OPTIONS]
    server = ManagedProcess(command, os.environ, stdout=tmp_path / "redis.log")
    url = f"rediss://:{PASSWORD}@127.0.0.1:{port}/0"
    server.wait_until(lambda: redis_answers(url, {"ssl_ca_certs": str(CA)}), "redis-server", TIMEOUT)
    yield port
    server.kill()


@pytest.fixture(params=["rediss", "sentinels"])
def tls_url(server_port: int, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of the server, or that of a sentinel that accepts only TLS and names this server as the master."""
    if request.param == "rediss":
        yield f"rediss://:{PASSWORD}@127.0.0.1:{server_port}/0"
        return
    sentinel = SentinelServer(tmp_path, server_port, f"sentinel auth-pass {SENTINEL_GROUP} {PASSWORD}")
    url = f"sentinels://:{PASSWORD}@127.0.0.1:{sentinel.port}/0?master={SENTINEL_GROUP}"
    only_tls = ["--port", "0", "--tls-port", str(sentinel.port), "--tls-replication", "yes"]
    with sentinel.running(url, *only_tls, *OPTIONS, ca_certs=str(CA)):
        yield url


@pytest.fixture
def make_tls_app(environment: dict[str, str], tls_url: str, contexts: contextlib.ExitStack) -> Callable[..., Flask]:
    """A function that creates an application with this server; `query` is added to the parameters of the URL."""

    def make(query: str = "", **settings: str) -> Flask:
        settings = environment | {"REDIS_URL": with_query(tls_url, query)} | settings
        return contexts.enter_context(app_factory.application(settings, RATELIMIT_ENABLED=True))

    return make


def with_query(url: str, query: str) -> str:
    """Return `url` with the parameters `query` added."""
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


@pytest.mark.parametrize("query", ["", "ssl_cert_reqs=none", "ssl_cert_reqs=CERT_NONE"])
@pytest.mark.exhaustive
def test_every_client_uses_tls(
    make_tls_app: Callable[..., Flask], make_worker: Callable[..., Worker], tls_url: str, query: str
) -> None:
    settings = {} if query else {"REDIS_CA_CERTS": str(CA)}
    app = make_tls_app(query, **settings)
    make_worker(REDIS_URL=with_query(tls_url, query), **settings)

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
    with pytest.raises(redis.ConnectionError, match=r"CERTIFICATE_VERIFY_FAILED|No master found"):
        redis_client.connection.ping()
