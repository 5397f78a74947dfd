"""What a reader gets when something is wrong, and what the log gets."""

from __future__ import annotations

import io
import json
import logging
import re
import sqlite3

import pytest
import sqlalchemy as sa
from celery._state import _task_stack
from flask import got_request_exception
from werkzeug.exceptions import default_exceptions

from microblog import logs
from microblog.database import DatabaseUnavailable
from microblog.extensions import db

CODES = [400, 401, 403, 404, 405, 410, 413, 429, 500, 503]


@pytest.fixture
def faulty(make_app):
    """An app that fails as it would in production, with addresses at which it does what it is told to."""
    faulty = make_app(TESTING=False)

    def fail(code: int):
        raise default_exceptions[code]()

    def crash():
        raise RuntimeError("secret detail")

    faulty.add_url_rule("/fault/<int:code>", "fail", fail, methods=["GET", "POST"])
    faulty.add_url_rule("/api/fault/<int:code>", "fail_api", fail)
    faulty.add_url_rule("/crash", "crash", crash)
    faulty.add_url_rule("/api/crash", "crash_api", crash)
    return faulty


@pytest.fixture
def log():
    """The lines that are logged meanwhile, as they would come out on stderr."""
    written = io.StringIO()
    root = logging.getLogger()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.Formatter())
    root.addHandler(handler)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    root.removeHandler(handler)


def test_an_error_is_a_page_with_a_sentence(faulty):
    for code in CODES:
        response = faulty.test_client().get(f"/fault/{code}")

        assert response.status_code == code
        assert response.mimetype == "text/html"
        assert "Microblog</title>" in response.text
        assert re.search(r'<p class="error-sentence">[^<]+\.</p>', response.text)


def test_an_error_of_the_api_is_a_problem(faulty):
    for code in CODES:
        response = faulty.test_client().get(f"/api/fault/{code}")

        assert response.status_code == code
        assert response.mimetype == "application/problem+json"
        problem = response.get_json(force=True)
        assert problem.keys() == {"type", "title", "status", "detail"}
        assert problem["status"] == code
        assert problem["detail"].endswith(".")


def test_an_address_that_the_api_does_not_have_is_a_problem_too(client):
    response = client.get("/api/no/such/thing")

    assert response.status_code == 404
    assert response.mimetype == "application/problem+json"


def test_a_method_that_is_not_taken_says_which_are(client):
    response = client.post("/explore")

    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]


@pytest.mark.parametrize("path", ["/crash", "/api/crash"])
def test_a_traceback_goes_to_the_log_in_one_line_and_never_to_the_reader(faulty, log, path):
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
def test_a_database_that_is_away_is_a_503_that_says_when_to_come_back(faulty, make_user, fault):
    make_user("susan")
    browser = faulty.test_client()
    browser.post("/auth/login", data={"username": "susan", "password": "cat-dog-fish"})
    assert browser.get("/").status_code == 200

    def away(*args) -> None:
        raise fault

    with faulty.app_context():
        engine = db.engine
    sa.event.listen(engine, "do_execute", away)
    try:
        read = browser.get("/")
        written = browser.post("/", data={"post": "not lost"})
    finally:
        sa.event.remove(engine, "do_execute", away)

    assert read.status_code == 503
    assert int(read.headers["Retry-After"]) > 0
    assert "database does not answer" in read.text
    assert "SELECT" not in read.text
    assert written.status_code == 503
    assert "not lost" in written.text
    assert browser.get("/").status_code == 200


@pytest.mark.both_databases
def test_a_statement_that_is_wrong_is_a_fault_of_ours_and_not_a_database_that_is_away(faulty):
    faults = []
    got_request_exception.connect(lambda _app, exception: faults.append(exception), faulty, weak=False)
    faulty.add_url_rule("/wrong", "wrong", lambda: str(db.session.scalar(sa.text("SELECT no_such_column"))))

    response = faulty.test_client().get("/wrong")

    assert response.status_code == 500
    assert "Something broke" in response.text
    assert "no_such_column" not in response.text
    assert len(faults) == 1, "whoever reports faults has heard of it"


@pytest.mark.both_databases
def test_a_database_is_away_if_it_cannot_be_reached_or_is_held_by_others(faulty, database, tmp_path):
    with faulty.app_context():
        engine, here = db.engine, database == "sqlite"
    nowhere = sa.create_engine(f"sqlite:///{tmp_path}/no/such" if here else "postgresql+psycopg://127.0.0.1:1/none")
    wait, hold = ("PRAGMA busy_timeout = 1", "BEGIN IMMEDIATE") if here else ("SET lock_timeout = 1", "LOCK TABLE post")

    with pytest.raises(DatabaseUnavailable):
        nowhere.connect()
    with engine.connect() as holder, engine.connect() as other:
        holder.execute(sa.text(hold))
        other.execute(sa.text(wait))
        with pytest.raises(DatabaseUnavailable):
            other.execute(sa.text("UPDATE post SET body = body"))


def test_while_redis_is_away_every_page_that_does_not_need_it_works(make_app, make_user, redis_server):
    app = make_app(TESTING=False, RATELIMIT_ENABLED=True)
    make_user("susan")
    browser = app.test_client()
    pages = {rule.rule for rule in app.url_map.iter_rules() if "GET" in rule.methods and not rule.arguments}
    pages -= {"/readyz", "/notifications/stream"}  # the one says that Redis is away, the other never ends

    with redis_server.away():
        signed_in = browser.post("/auth/login", data={"username": "susan", "password": "cat-dog-fish"})
        statuses = {page: browser.get(page).status_code for page in pages}
        written = browser.post("/", data={"post": "not lost"})

    assert (signed_in.status_code, written.status_code) == (302, 302)
    assert {page: status for page, status in statuses.items() if status >= 500} == {}
    assert statuses["/"] == statuses["/tasks"] == statuses["/explore"] == 200


@pytest.mark.parametrize("database", ["postgresql"])
def test_a_database_that_was_restarted_costs_nobody_a_page(faulty, make_user, postgres_server):
    make_user("susan")
    browser = faulty.test_client()
    browser.post("/auth/login", data={"username": "susan", "password": "cat-dog-fish"})
    db.session.rollback()

    postgres_server.cut_connections(str(db.engine.url.database))

    assert browser.get("/").status_code == 200


def test_a_form_from_elsewhere_is_refused_and_what_was_typed_is_handed_back(app, signed_in, make_user):
    browser = signed_in(make_user())
    app.config["WTF_CSRF_ENABLED"] = True

    response = browser.post("/", data={"post": "half an hour's <work>", "csrf_token": "forged"})

    assert response.status_code == 400
    assert "open too long" in response.text
    assert "half an hour&#39;s &lt;work&gt;</textarea>" in response.text
    assert "half an hour" not in browser.get("/").text


def test_a_body_that_is_too_large_is_refused(app, signed_in, make_user):
    browser = signed_in(make_user())
    app.config["MAX_CONTENT_LENGTH"] = 1000

    response = browser.post("/", data={"post": "x" * 2000})

    assert response.status_code == 413
    assert "larger than this site takes" in response.text


def test_a_page_is_in_a_language_that_we_have_whatever_is_asked_for(client):
    for asked in ("de", "en-GB;q=0.5, tlh", "", "*", "¿?"):
        page = client.get("/auth/login", headers={"Accept-Language": asked.encode().decode("latin-1")})
        assert page.status_code == 200
        assert '<html lang="en">' in page.text


def test_a_request_keeps_the_id_that_it_came_with(client):
    for given in ("abc-123", "A.b_c", "x" * 64):
        assert client.get("/auth/login", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


def test_an_id_that_does_not_look_like_one_is_replaced(client):
    for given in ("", "x" * 65, "two words", "<b>", '{"a":1}'):
        answered = client.get("/auth/login", headers={"X-Request-ID": given}).headers["X-Request-ID"]
        assert re.fullmatch(r"[0-9a-f]{32}", answered)


def test_a_request_is_one_line_without_its_query_or_its_cookies(client, log):
    client.set_cookie("session", "confidential")

    client.get("/auth/login?next=/exports/1/download?token=confidential", headers={"X-Request-ID": "line-1"})

    (line,) = [line for line in log() if line["logger"] == "microblog.logs"]
    assert line["request_id"] == "line-1"
    assert line["task_id"] is None
    assert (line["method"], line["path"], line["status"]) == ("GET", "/auth/login", 200)
    assert line["duration_ms"] >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    assert "confidential" not in json.dumps(line)


def test_what_celery_says_about_a_task_names_it_and_repeats_none_of_its_arguments(app, log):
    data = {"id": "task-1", "name": "export_posts", "args": "('confidential',)", "kwargs": "{}"}

    logging.getLogger("celery.worker.strategy").warning("Task received", extra={"data": data})

    (line,) = [line for line in log() if line["logger"] == "celery.worker.strategy"]
    assert line["task_id"] == "task-1"
    assert "confidential" not in json.dumps(line)


def test_a_line_of_a_task_names_the_task_and_the_request_that_launched_it(app, log):
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
