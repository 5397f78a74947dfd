"""Microblog: create_app() builds the application from the packages here; `taskqueue` is the task engine."""

from __future__ import annotations

import pkgutil
from importlib.util import find_spec
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from config import load_settings
from microblog import errors, extensions, i18n, logs, security
from microblog.taskqueue.celery_settings import celery_settings
from microblog.taskqueue.worker import make_celery


def create_app(**overrides: Any) -> Flask:
    """Return the Flask application.

    `overrides` replace settings read from the environment, by their upper-case names. Raises config.ConfigError, which
    ends the program, if the environment is invalid.
    """
    settings = load_settings() | overrides
    app = Flask(__name__, instance_path=settings["INSTANCE_PATH"])
    app.config.from_mapping(settings)
    app.wsgi_app = ProxyFix(app.wsgi_app, *[app.config["TRUSTED_PROXIES"]] * 4)  # type: ignore[method-assign]
    logs.init_app(app)
    security.init_app(app)
    errors.init_app(app)
    extensions.init_app(app)
    i18n.init_app(app, extensions.babel)
    make_celery(app, celery_settings(app.config), _packages_with_tasks())
    _register_packages(app)
    return app


def _packages_with_tasks() -> list[str]:
    """Return the packages here that have a module ``tasks``, which Celery imports."""
    packages = [f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__) if module.ispkg]
    return [package for package in packages if find_spec(f"{package}.tasks")]


def _register_packages(app: Flask) -> None:
    from microblog import (
        accounts,
        api,
        development,
        error_reports,
        exports,
        imports,
        jobs,
        mail,
        messages,
        monitoring,
        notifications,
        posts,
        search,
    )
    from microblog.demo.cli import demo

    features = (accounts, posts, search, messages, jobs, mail, error_reports, exports, imports)
    for package in (*features, notifications, monitoring, api):
        package.init_app(app)
    app.cli.add_command(demo)
    if app.config["MICROBLOG_ENV"] == "development":
        development.init_app(app)
