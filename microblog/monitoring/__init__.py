"""Monitoring for operators: probes, metrics, and commands and pages for the jobs of all users."""

from __future__ import annotations

from celery.signals import worker_init, worker_ready
from flask import Flask


def init_app(app: Flask) -> None:
    """Register the probes, the pages, ``flask tasks``, and the monitoring steps of workers."""
    from microblog.extensions import limiter
    from microblog.monitoring import (
        cli,
        health_routes,
        metrics,
        rollup,  # also registers the tables for the migrations
        schedule,
        worker_rpc,  # noqa: F401 - registers remote control commands
    )
    from microblog.monitoring.probes import ConcurrentProbes
    from microblog.monitoring.storage_reports import StorageReporter, check_storages
    from microblog.monitoring.web import admin
    from microblog.monitoring.workers import HeartbeatStep

    # Probes must not be limited, and must work while the storage of the limiter is unavailable.
    limiter.exempt(health_routes.bp)
    app.register_blueprint(health_routes.bp)
    app.register_blueprint(admin.bp)
    app.extensions["readiness"] = ConcurrentProbes(app)
    app.cli.add_command(cli.tasks)
    metrics.init_app(app)
    rollup.init_app(app)
    schedule.init_app(app)
    app.extensions["celery"].steps["consumer"].add(HeartbeatStep)
    worker_init.connect(lambda **_: check_storages(app), weak=False)
    worker_ready.connect(lambda sender, **_: StorageReporter(app, sender.hostname).start(), weak=False)
