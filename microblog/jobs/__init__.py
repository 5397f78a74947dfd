"""Jobs as their users see and control them, and the pages of /tasks."""

from __future__ import annotations

from datetime import timedelta

from flask import Flask

SHOWN_FOR = timedelta(minutes=15)  # how long the last job that ended is shown on every page


def init_app(app: Flask) -> None:
    """Register the pages, and make the user's recent jobs available to every template."""
    from flask_login import current_user

    from microblog.database import DatabaseTime, database_time
    from microblog.extensions import db
    from microblog.jobs.models import Job, newest_jobs
    from microblog.jobs.routes import bp

    app.register_blueprint(bp)

    @app.template_global()
    def recent_jobs() -> list[Job]:
        return newest_jobs(current_user.id, DatabaseTime(-SHOWN_FOR.total_seconds()))

    @app.template_global()
    def current_timestamp() -> float:
        return database_time(db.session).timestamp()
