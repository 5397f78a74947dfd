"""Web servers and workers detect that they do not use the same storage."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from socket import gethostname
from threading import Event, Thread
from urllib.request import urlopen

import pytest
from flask import Flask

from microblog.extensions import SiteRedis
from microblog.monitoring import storage_reports
from microblog.monitoring.rules import Verdict
from microblog.monitoring.status import SystemStatus, check_status
from microblog.monitoring.storage_reports import (
    ID_FILE,
    REPORTS_KEY,
    WEB,
    StorageReporter,
    check_storages,
    programs_without_storage,
)
from tests.support.console import commands
from tests.support.programs import run
from tests.support.servers import TIMEOUT, RedisServer, Worker, free_port, wait_for

pytestmark = pytest.mark.parametrize("database", ["sqlite"])  # which is not used

GUNICORN = (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py")
EXPORTS, IMPORTS = "EXPORT_STORAGE_URL", "IMPORT_STORAGE_URL"


def sentences(status: SystemStatus) -> list[str]:
    return [problem.text for problem in status.problems]


def id_of(app: Flask, setting: str) -> str:
    return (Path(app.config[setting]) / ID_FILE).read_text()


def report(app: Flask, program: str, **settings: str) -> None:
    """Report as `program`, which has other settings."""
    own = {name: app.config[name] for name in settings}
    app.config |= settings
    StorageReporter(app, program).report()
    app.config |= own


def test_programs_with_one_storage_have_no_problem(app: Flask) -> None:
    for program in (f"{WEB}a", "celery@b"):
        report(app, program)

    assert programs_without_storage(app) == {}
    assert id_of(app, EXPORTS) != id_of(app, IMPORTS)


def test_programs_that_start_together_agree(app: Flask) -> None:
    programs = [Thread(target=report, args=(app, f"celery@{n}")) for n in range(8)]
    for program in programs:
        program.start()
    for program in programs:
        program.join()

    assert programs_without_storage(app) == {}


def test_status_names_program_with_other_storage(app: Flask, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report(app, "celery@b")
    report(app, f"{WEB}c")
    report(app, "celery@a", EXPORT_STORAGE_URL=str(tmp_path / "other"))
    problem = f"celery@a: {EXPORTS} is another storage than that of celery@b."

    status = check_status(timeout=0.1)

    assert problem in sentences(status)
    assert f"- {problem}" in commands(app, "tasks")("status", "--timeout", "0.1").output
    assert 'microblog_problems{rule="storage",urgent="true"} 1.0' in app.extensions["metrics"].expose("")[0].decode()
    assert caplog.messages.count(problem) == 1
    report(app, "celery@a")
    assert check_status(timeout=0.1).without_storage == {}


def test_status_names_program_that_cannot_use_storage(app: Flask, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    report(app, "celery@a", IMPORT_STORAGE_URL=str(tmp_path / "file" / "imports"))
    report(app, "celery@b")

    assert list(programs_without_storage(app)) == ["celery@a"]
    assert f"{IMPORTS} cannot be used: [Errno 20] Not a directory" in programs_without_storage(app)["celery@a"]


def test_problem_is_logged_once_until_it_returns(app: Flask, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report(app, "celery@a", EXPORT_STORAGE_URL=str(tmp_path / "other"))
    reporter = StorageReporter(app, "celery@b")

    for _ in range(3):
        reporter.report()

    assert len([message for message in caplog.messages if "is another storage" in message]) == 1


def test_report_expires(app: Flask, redis_server: RedisServer, tmp_path: Path) -> None:
    report(app, "celery@a")
    client: SiteRedis = redis_server.client
    [member] = client.zrange(client.key(REPORTS_KEY), 0, -1)
    client.zincrby(client.key(REPORTS_KEY), -100, str(member))

    report(app, "celery@b", EXPORT_STORAGE_URL=str(tmp_path / "other"))

    assert programs_without_storage(app) == {}


def test_replaced_storage_gets_new_id(app: Flask) -> None:
    report(app, "celery@a")
    before = id_of(app, EXPORTS)
    shutil.rmtree(app.config[EXPORTS])

    report(app, "celery@a")

    assert id_of(app, EXPORTS) != before
    assert programs_without_storage(app) == {}


def test_unusable_folder_stops_program(app: Flask, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    app.config[IMPORTS] = str(tmp_path / "file" / "imports")

    with pytest.raises(SystemExit, match=rf"^{IMPORTS}: the storage cannot be used \(.*Not a directory"):
        check_storages(app)


def test_start_does_not_wait_for_hanging_storage(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    release = Event()
    monkeypatch.setattr(storage_reports, "_id_of", lambda *_: release.wait())
    monkeypatch.setattr(storage_reports, "PROBE_TIMEOUT", 0.1)

    check_storages(app)
    report(app, "celery@a")

    release.set()
    assert f"{EXPORTS} cannot be used: no answer" in programs_without_storage(app)["celery@a"]


def test_start_does_not_need_redis(make_app: Callable[..., Flask]) -> None:
    check_storages(make_app(REDIS_URL="redis://127.0.0.1:1/0"))


@pytest.mark.exhaustive
def test_worker_with_other_folder_is_reported(app: Flask, make_worker: Callable[..., Worker], tmp_path: Path) -> None:
    workers = {worker.name: worker for worker in (make_worker(concurrency=1), make_worker(concurrency=1))}
    other = make_worker(concurrency=1, EXPORT_STORAGE_URL=str(tmp_path / "other"))
    problem = f"{other.name}: {EXPORTS} is another storage than that of {min(workers)}."

    wait_for(lambda: problem in sentences(check_status(timeout=TIMEOUT)), what="the status names the worker")

    assert check_status(timeout=TIMEOUT).verdict is Verdict.DEGRADED
    wait_for(lambda: problem in other.text(), what="the worker logs it")


@pytest.mark.exhaustive
def test_web_server_with_other_folder_is_reported(
    app: Flask,
    environment: dict[str, str],
    make_worker: Callable[..., Worker],
    start_web: Callable[[dict[str, str]], int],
    tmp_path: Path,
) -> None:
    worker = make_worker(concurrency=1)
    problem = f"{WEB}{gethostname()}: {EXPORTS} is another storage than that of {worker.name}."

    port = start_web(environment | {EXPORTS: str(tmp_path / "other")})

    wait_for(lambda: problem in sentences(check_status(timeout=TIMEOUT)), what="the status names the web server")
    wait_for(lambda: problem in (tmp_path / "web-0.log").read_text(), what="the web server logs it")
    assert urlopen(f"http://127.0.0.1:{port}/readyz", timeout=TIMEOUT).status == 200


@pytest.mark.exhaustive
def test_web_server_refuses_unusable_folder(app: Flask, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = {"PORT": str(free_port()), IMPORTS: str(tmp_path / "file" / "imports")}
    command = [*GUNICORN, "microblog:create_app()"]

    result = subprocess.run(command, env=environment | settings, capture_output=True, text=True, timeout=TIMEOUT)

    assert result.returncode == 3
    assert f"{IMPORTS}: the storage cannot be used (" in result.stderr


@pytest.mark.exhaustive
def test_worker_refuses_unusable_folder(app: Flask, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment[EXPORTS] = str(tmp_path / "file" / "exports")

    result = run(["celery", "-A", "tests.support.worker_app", "worker"], environment)

    assert result.returncode == 1
    assert f"{EXPORTS}: the storage cannot be used (" in result.stderr
    assert "Traceback" not in result.stderr
