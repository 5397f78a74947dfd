"""Microblog. Read on in the rooms: taskqueue/ is the engine, the others are features (docs/architecture.md)."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from config import load_settings
from microblog import errors, locale, logs, security
from microblog.celeryconfig import celery_settings
from microblog.extensions import babel, bootstrap, csrf, db, limiter, login, migrate, redis_client
from microblog.extensions import mail as mailer  # `mail` is the room's name here, once anybody has imported it
from microblog.taskqueue.celery import make_celery

ROOMS_WITH_TASKS = [
    "microblog.taskqueue",
    "microblog.mail",
    "microblog.accounts",
    "microblog.error_reports",
    "microblog.exports",
    "microblog.imports",
    "microblog.jobs",
    "microblog.notifications",
    "microblog.search",
    "microblog.monitoring",
]


def create_app(**overrides: Any) -> Flask:
    """The Flask application, wired.

    `overrides` replace settings read from the environment, by their upper-case names. Raises config.ConfigError,
    which ends the program, if the environment is not usable.
    """
    settings = load_settings() | overrides
    app = Flask(__name__, instance_path=settings["INSTANCE_PATH"])
    app.config.from_mapping(settings)
    app.wsgi_app = ProxyFix(app.wsgi_app, *[app.config["TRUSTED_PROXIES"]] * 4)  # type: ignore[method-assign]
    logs.init_app(app)
    security.init_app(app)
    errors.init_app(app)
    _bind_extensions(app)
    make_celery(app, celery_settings(app.config), ROOMS_WITH_TASKS)
    _register_rooms(app)
    return app


def _bind_extensions(app: Flask) -> None:
    db.init_app(app)
    migrate.init_app(app, db, render_as_batch=True)
    login.init_app(app)
    mailer.init_app(app)
    locale.init_app(app, babel)
    csrf.init_app(app)
    bootstrap.init_app(app)
    limiter.init_app(app)
    redis_client.init_app(app)


def _register_rooms(app: Flask) -> None:
    from microblog import (
        accounts,
        api,
        development,
        error_reports,
        exports,
        imports,
        jobs,
        messages,
        monitoring,
        notifications,
        posts,
        search,
    )
    from microblog import mail as mails
    from microblog.demo import cli as demo

    features = (accounts, posts, search, messages, jobs, mails, error_reports, exports, imports)
    for room in (*features, notifications, monitoring, api):
        room.init_app(app)
    app.cli.add_command(demo.create)
    if app.config["MICROBLOG_ENV"] == "development":
        development.init_app(app)
