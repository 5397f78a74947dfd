"""Error responses, and the log lines of errors, requests and tasks."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import sqlalchemy as sa
from celery._state import _task_stack
from flask import Flask, got_request_exception
from flask.testing import FlaskClient
from werkzeug.exceptions import default_exceptions

from microblog import logs
from microblog.accounts.models import User
from microblog.database import DatabaseUnavailable
from microblog.extensions import db
from tests.support import not_none
from tests.support.clients import sign_in
from tests.support.servers import REFUSALS, Postgres, RedisServer

Log = Callable[[], list[dict[str, Any]]]

CODES = [400, 401, 403, 404, 405, 410, 413, 429, 500, 503]


@pytest.fixture
def faulty(make_app: Callable[..., Flask]) -> Flask:
    """An app with the error handling of production and routes that fail with a given status or exception."""
    faulty = make_app(TESTING=False)

    def fail(code: int) -> NoReturn:
        raise default_exceptions[code]()

    def crash() -> NoReturn:
        raise RuntimeError("secret detail")

    faulty.add_url_rule("/fault/<int:code>", "fail", fail, methods=["GET", "POST"])
    faulty.add_url_rule("/api/fault/<int:code>", "fail_api", fail)
    faulty.add_url_rule("/crash", "crash", crash)
    faulty.add_url_rule("/api/crash", "crash_api", crash)
    return faulty


@pytest.fixture
def log() -> Iterator[Log]:
    """A function that returns the lines logged during the test, formatted as on stderr."""
    written = io.StringIO()
    root = logging.getLogger()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.Formatter())
    root.addHandler(handler)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    root.removeHandler(handler)


def test_error_is_a_page_with_explanation(faulty: Flask) -> None:
    for code in CODES:
        response = faulty.test_client().get(f"/fault/{code}")

        assert response.status_code == code
        assert response.mimetype == "text/html"
        assert "Microblog</title>" in response.text
        assert re.search(r'<p class="error-message">[^<]+\.</p>', response.text)


def test_api_error_is_a_problem(faulty: Flask) -> None:
    for code in CODES:
        response = faulty.test_client().get(f"/api/fault/{code}")

        assert response.status_code == code
        assert response.mimetype == "application/problem+json"
        problem = response.get_json(force=True)
        assert problem.keys() == {"type", "title", "status", "detail"}
        assert problem["status"] == code
        assert problem["detail"].endswith(".")


def test_unknown_api_path_is_a_problem(client: FlaskClient) -> None:
    response = client.get("/api/no/such/thing")

    assert response.status_code == 404
    assert response.mimetype == "application/problem+json"


def test_wrong_method_has_allow_header(client: FlaskClient) -> None:
    response = client.post("/explore")

    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]


@pytest.mark.parametrize("path", ["/crash", "/api/crash"])
def test_traceback_is_logged_and_not_shown(faulty: Flask, log: Log, path: str) -> None:
    response = faulty.test_client().get(path, headers={"X-Request-ID": "crash-1"})

    assert response.status_code == 500
    assert "secret detail" not in response.text
    assert "Traceback" not in response.text
    (line,) = [line for line in log() if "secret detail" in line.get("exception", "")]
    assert "RuntimeError: secret detail" in line["exception"]
    assert line["request_id"] == "crash-1"
    assert line["level"] == "ERROR"


CANNOT_OPEN = sqlite3.OperationalError("unable to open database file")
CANNOT_OPEN.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize(
    "fault", [CANNOT_OPEN, sqlite3.ProgrammingError("Cannot operate on a closed database.")], ids=["fault0", "fault1"]
)
def test_unavailable_database_is_503_with_retry_after(
    faulty: Flask, make_user: Callable[..., User], fault: sqlite3.Error
) -> None:
    make_user("susan")
    browser = faulty.test_client()
    sign_in(browser)
    assert browser.get("/").status_code == 200

    def fail(*args: object) -> NoReturn:
        raise fault

    with faulty.app_context():
        engine = db.engine
    sa.event.listen(engine, "do_execute", fail)
    try:
        read = browser.get("/")
        written = browser.post("/", data={"post": "not lost"})
    finally:
        sa.event.remove(engine, "do_execute", fail)

    assert read.status_code == 503
    assert int(read.headers["Retry-After"]) > 0
    assert "database does not answer" in read.text
    assert "SELECT" not in read.text
    assert written.status_code == 503
    assert "not lost" in written.text
    assert browser.get("/").status_code == 200


@pytest.mark.both_databases
def test_invalid_statement_is_500_not_503(faulty: Flask) -> None:
    faults = []
    got_request_exception.connect(lambda _app, exception: faults.append(exception), faulty, weak=False)
    faulty.add_url_rule("/wrong", "wrong", lambda: str(db.session.scalar(sa.text("SELECT no_such_column"))))

    response = faulty.test_client().get("/wrong")

    assert response.status_code == 500
    assert "Something broke" in response.text
    assert "no_such_column" not in response.text
    assert len(faults) == 1, "the error is reported"


@pytest.mark.both_databases
def test_unreachable_or_locked_database_is_unavailable(faulty: Flask, database: str, tmp_path: Path) -> None:
    with faulty.app_context():
        engine, is_sqlite = db.engine, database == "sqlite"
    unreachable = sa.create_engine(
        f"sqlite:///{tmp_path}/no/such" if is_sqlite else "postgresql+psycopg://127.0.0.1:1/none"
    )
    hold = "BEGIN IMMEDIATE" if is_sqlite else "LOCK TABLE post"

    with pytest.raises(DatabaseUnavailable):
        unreachable.connect()
    with engine.connect() as holder, engine.connect() as other:
        holder.execute(sa.text(hold))
        if is_sqlite:
            not_none(other.connection.driver_connection).lock_timeout = 0.1
        else:
            other.execute(sa.text("SET lock_timeout = 1"))
        with pytest.raises(DatabaseUnavailable):
            other.execute(sa.text("UPDATE post SET body = body"))


@pytest.mark.parametrize("refusal", [None, *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in REFUSALS)])
def test_pages_work_while_redis_is_unavailable_or_refuses(
    make_app: Callable[..., Flask], make_user: Callable[..., User], redis_server: RedisServer, refusal: str | None
) -> None:
    app = make_app(TESTING=False, RATELIMIT_ENABLED=True)
    make_user("susan")
    browser = app.test_client()
    pages = {rule.rule for rule in app.url_map.iter_rules() if "GET" in not_none(rule.methods) and not rule.arguments}
    pages -= {"/readyz", "/notifications/stream"}  # /readyz reports the outage, and the stream never ends

    with redis_server.refusing(refusal) if refusal else redis_server.stopped():
        signed_in = sign_in(browser)
        statuses = {page: browser.get(page).status_code for page in pages}
        written = browser.post("/", data={"post": "not lost"})

    assert (signed_in.status_code, written.status_code) == (302, 302)
    assert {page: status for page, status in statuses.items() if status >= 500} == {}
    assert statuses["/"] == statuses["/tasks"] == statuses["/explore"] == 200


@pytest.mark.parametrize("database", ["postgresql"])
def test_pages_work_after_database_restart(
    faulty: Flask, make_user: Callable[..., User], postgres_server: Postgres
) -> None:
    make_user("susan")
    browser = faulty.test_client()
    sign_in(browser)
    db.session.rollback()

    postgres_server.cut_connections(str(db.engine.url.database))

    assert browser.get("/").status_code == 200


@pytest.mark.parametrize("database", ["postgresql"])
def test_page_is_sent_although_its_connection_is_lost_afterwards(
    faulty: Flask, make_user: Callable[..., User], postgres_server: Postgres
) -> None:
    make_user("susan")
    db.session.remove()

    def lose_connection() -> str:
        name = db.session.scalars(sa.select(User.username)).one()
        postgres_server.cut_connections(str(db.engine.url.database))
        return name

    faulty.add_url_rule("/lose-connection", view_func=lose_connection)
    browser, text = faulty.test_client(), ""
    with contextlib.suppress(DatabaseUnavailable):  # which gunicorn answers with 500
        text = browser.get("/lose-connection").text

    assert text == "susan"
    assert browser.get("/").status_code == 302


def test_forged_form_is_refused_with_draft(
    app: Flask, signed_in: Callable[..., FlaskClient], make_user: Callable[..., User]
) -> None:
    browser = signed_in(make_user())
    app.config["WTF_CSRF_ENABLED"] = True

    response = browser.post("/", data={"post": "half an hour's <work>", "csrf_token": "forged"})

    assert response.status_code == 400
    assert "open too long" in response.text
    assert "half an hour&#39;s &lt;work&gt;</textarea>" in response.text
    assert "half an hour" not in browser.get("/").text


def test_large_body_is_refused(
    app: Flask, signed_in: Callable[..., FlaskClient], make_user: Callable[..., User]
) -> None:
    browser = signed_in(make_user())
    app.config["MAX_CONTENT_LENGTH"] = 1000

    response = browser.post("/", data={"post": "x" * 2000})

    assert response.status_code == 413
    assert "larger than this site takes" in response.text


def test_unsupported_languages_fall_back_to_english(client: FlaskClient) -> None:
    for requested in ("de", "en-GB;q=0.5, tlh", "", "*", "¿?"):
        page = client.get("/auth/login", headers={"Accept-Language": requested.encode().decode("latin-1")})
        assert page.status_code == 200
        assert '<html lang="en">' in page.text


def test_valid_request_id_is_returned(client: FlaskClient) -> None:
    for given in ("abc-123", "A.b_c", "x" * 64):
        assert client.get("/auth/login", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


def test_invalid_request_id_is_replaced(client: FlaskClient) -> None:
    for given in ("", "x" * 65, "two words", "<b>", '{"a":1}'):
        returned = client.get("/auth/login", headers={"X-Request-ID": given}).headers["X-Request-ID"]
        assert re.fullmatch(r"[0-9a-f]{32}", returned)


def test_request_log_omits_query_and_cookies(client: FlaskClient, log: Log) -> None:
    client.set_cookie("session", "confidential")

    client.get("/auth/login?next=/exports/1/download?token=confidential", headers={"X-Request-ID": "line-1"})

    (line,) = [line for line in log() if line["logger"] == "microblog.logs"]
    assert line["request_id"] == "line-1"
    assert line["task_id"] is None
    assert (line["method"], line["path"], line["status"]) == ("GET", "/auth/login", 200)
    assert line["duration_ms"] >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    assert "confidential" not in json.dumps(line)


def test_celery_log_has_task_id_without_arguments(app: Flask, log: Log) -> None:
    data = {"id": "task-1", "name": "export_posts", "args": "('confidential',)", "kwargs": "{}"}

    logging.getLogger("celery.worker.strategy").warning("Task received", extra={"data": data})

    (line,) = [line for line in log() if line["logger"] == "celery.worker.strategy"]
    assert line["task_id"] == "task-1"
    assert "confidential" not in json.dumps(line)


def test_task_log_has_task_id_and_request_id(app: Flask, log: Log) -> None:
    task = next(iter(app.extensions["celery"].tasks.values()))
    task.push_request(id="task-1", request_id="click-1")
    _task_stack.push(task)
    try:
        logging.getLogger("exports").warning("half way")
    finally:
        _task_stack.pop()
        task.pop_request()
    logging.getLogger("exports").warning("elsewhere")

    in_task, elsewhere = (line for line in log() if line["logger"] == "exports")
    assert (in_task["task_id"], in_task["request_id"]) == ("task-1", "click-1")
    assert (elsewhere["task_id"], elsewhere["request_id"]) == (None, None)


@pytest.mark.parametrize("database", ["sqlite"])
def test_full_disk_counts_as_unavailable(app: Flask) -> None:
    with db.engine.connect() as connection:
        pages = connection.execute(sa.text("PRAGMA page_count")).scalar_one()
        connection.execute(sa.text(f"PRAGMA max_page_count = {pages}"))
        with pytest.raises(sa.exc.OperationalError, match="full") as error:
            connection.execute(sa.text("CREATE TABLE filler AS SELECT hex(randomblob(1000000)) AS filler"))

    assert isinstance(error.value, DatabaseUnavailable)
