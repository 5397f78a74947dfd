"""The operators' face: health, and the commands that see and steer the jobs of all users."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the probes and ``flask tasks``."""
    from microblog.extensions import limiter
    from microblog.monitoring import cli, routes
    from microblog.monitoring import models as models  # makes the tables known to the migrations
    from microblog.monitoring.readiness import Readiness

    # Not only are probes not to be limited: the limiter looks for its storage, and they must do without.
    limiter.exempt(routes.bp)
    app.register_blueprint(routes.bp)
    app.extensions["readiness"] = Readiness(app)
    app.cli.add_command(cli.tasks)
