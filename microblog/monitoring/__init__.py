"""The operators' face: health, and the commands and pages that see and steer the jobs of all users."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register probes, pages and ``flask tasks``, and the part of a worker that signs in and answers."""
    from microblog.extensions import limiter
    from microblog.monitoring import admin, cli, counters, presence, roll_up, routes
    from microblog.monitoring import asking as asking  # what workers answer to
    from microblog.monitoring import models as models  # makes the tables known to the migrations
    from microblog.monitoring.metrics import Metrics
    from microblog.monitoring.readiness import Readiness

    # Not only are probes not to be limited: the limiter looks for its storage, and they must do without.
    limiter.exempt(routes.bp)
    app.register_blueprint(routes.bp)
    app.register_blueprint(admin.bp)
    app.extensions["readiness"] = Readiness(app)
    app.extensions["metrics"] = Metrics(app)
    app.cli.add_command(cli.tasks)
    counters.init_app(app)
    roll_up.init_app(app)
    app.extensions["celery"].steps["consumer"].add(presence.Presence)
