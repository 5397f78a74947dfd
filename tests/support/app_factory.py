"""Applications under test, each with its environment and database."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import flask_migrate
import pytest
from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket

from microblog import create_app, logs
from microblog.extensions import db, limiter
from microblog.notifications.pubsub import Hub
from microblog.taskqueue.worker import CeleryApp
from tests.support.clients import Client
from tests.support.programs import ROOT


def migrate(environment: dict[str, str], url: str) -> None:
    """Make all tables in the database at `url`, by the migrations."""
    with application(environment | {"DATABASE_URL": url}):
        flask_migrate.upgrade(directory=str(ROOT / "migrations"))


def fresh_database(folder: Path, request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty, migrated SQLite database in `folder`."""
    path = folder / "microblog.db"
    shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
    return f"sqlite:///{path}"


class _Compiled(BytecodeCache):
    """Templates are compiled once in this process, not once for each application."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code is not None:
            self._codes[bucket.key, bucket.checksum] = bucket.code


_compiled = _Compiled()


@contextlib.contextmanager
def application(environment: dict[str, str], **overrides: Any) -> Iterator[Flask]:
    """An application in this process, with its context pushed."""
    with _environment(environment):
        app = _create(overrides)
        with app.app_context():
            yield app
            _close_connections(app)


class Applications:
    """The applications of this process, by their environments: making one takes longer than most tests."""

    def __init__(self) -> None:
        self._made: dict[frozenset[tuple[str, str]], Flask] = {}

    @contextlib.contextmanager
    def borrow(self, environment: dict[str, str]) -> Iterator[Flask]:
        """Yield the application for `environment` as if it were new, with its context pushed."""
        key = frozenset(environment.items())
        with _environment(environment):
            app = self._made.get(key)
            if app is None:
                app = self._made[key] = _create({})
            with _restored(app), app.app_context():
                yield app
                _close_connections(app)


def _close_connections(app: Flask) -> None:
    db.session.remove()
    db.engine.dispose()
    app.extensions["celery"].executor.forget_connections()


def _create(overrides: dict[str, Any]) -> Flask:
    limiter._storage_dead = False  # one for all applications of a process: an outage that an earlier one met is over
    app = create_app(**{"WTF_CSRF_ENABLED": False} | overrides)
    app.test_client_class = Client
    app.jinja_env.bytecode_cache = _compiled
    import tests.support.tasks as _tasks  # noqa: F401 - registers the tests' tasks

    return app


@contextlib.contextmanager
def _environment(environment: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        yield


@contextlib.contextmanager
def _restored(app: Flask) -> Iterator[None]:
    """Undo what others left behind in `app`, before and after."""
    logs.configure(app.config["LOG_LEVEL"])  # to the stderr of this test
    celery: CeleryApp = app.extensions["celery"]
    celery.set_default()
    celery.set_current()
    celery.backend._cache.clear()  # of results: some tests name their tasks by themselves
    limiter.enabled = app.config["RATELIMIT_ENABLED"]  # one for all applications of a process
    app.extensions["hub"] = Hub(app.extensions["redis"])
    config, extensions = dict(app.config), dict(app.extensions)
    yield
    for kept, state in ((config, app.config), (extensions, app.extensions)):
        state.clear()
        state.update(kept)
