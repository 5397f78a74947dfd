"""Applications for the tests, each with its environment and database."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import flask_migrate
import pytest
from celery import current_app
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
    """Create all tables in the database at `url` by running the migrations."""
    with application(environment | {"DATABASE_URL": url}):
        flask_migrate.upgrade(directory=str(ROOT / "migrations"))


def fresh_database(folder: Path, request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty, migrated SQLite database in `folder`."""
    path = folder / "microblog.db"
    shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
    return f"sqlite:///{path}"


class _TemplateCache(BytecodeCache):
    """A cache of compiled templates that all applications of this process share."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code is not None:
            self._codes[bucket.key, bucket.checksum] = bucket.code


_template_cache = _TemplateCache()


@contextlib.contextmanager
def application(environment: dict[str, str], **overrides: Any) -> Iterator[Flask]:
    """Create an application, and push its context. Afterwards, the current app of Celery is the earlier one."""
    with _environment(environment):
        earlier = current_app._get_current_object()
        try:
            app = _create(overrides)
            with app.app_context():
                try:
                    yield app
                finally:
                    _close_connections(app)
        finally:
            earlier.set_default()
            earlier.set_current()


class Applications:
    """The applications of this process by environment. Creating one takes longer than most tests."""

    def __init__(self) -> None:
        self._made: dict[frozenset[tuple[str, str]], Flask] = {}

    @contextlib.contextmanager
    def borrow(self, environment: dict[str, str]) -> Iterator[Flask]:
        """Yield the application for `environment` in its initial state, with its context pushed."""
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


def _create(overrides: dict[str, Any]) -> Flask:
    # All applications of a process share the limiter: an earlier outage is over, and it would add this one's options to
    # those of an earlier one.
    limiter._storage_dead = False
    limiter._storage_options.clear()
    app = create_app(**{"WTF_CSRF_ENABLED": False} | overrides)
    app.test_client_class = Client
    app.jinja_env.bytecode_cache = _template_cache
    import tests.support.tasks  # noqa: F401 - register the tests' tasks

    return app


@contextlib.contextmanager
def _environment(environment: dict[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        yield


@contextlib.contextmanager
def _restored(app: Flask) -> Iterator[None]:
    """Reset the state of `app` before the block, and restore its config and extensions after it."""
    logs.configure(app.config)  # log to the stderr of this test
    celery: CeleryApp = app.extensions["celery"]
    celery.set_default()
    celery.set_current()
    celery.backend._cache.clear()  # cached results: some tests choose their own task ids
    limiter.enabled = app.config["RATELIMIT_ENABLED"]  # all applications of a process share it
    app.extensions["hub"] = Hub(app.extensions["redis"])
    config, extensions = dict(app.config), dict(app.extensions)
    yield
    for saved, state in ((config, app.config), (extensions, app.extensions)):
        state.clear()
        state.update(saved)
