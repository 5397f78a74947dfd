"""Notifications and live events: rows, rendering, event streams and polling."""

from __future__ import annotations

import math

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the routes, connect to the task queue's signal, and give every template the user's unread counts."""
    from flask_login import current_user

    from microblog.notifications import unread_counts
    from microblog.notifications.pubsub import Hub, publish_change
    from microblog.notifications.push import notify_job_ended
    from microblog.notifications.routes import bp
    from microblog.taskqueue.interface import TaskChange, task_changed

    def announce(sender: object, change: TaskChange) -> None:
        publish_change(app, change)
        notify_job_ended(app, change)

    app.register_blueprint(bp)
    max_streams = app.config["STREAMS_PER_USER"] if app.config["RATELIMIT_ENABLED"] else math.inf
    app.extensions["hub"] = Hub(app.extensions["redis"], max_streams)
    app.extensions["announce"] = announce  # signals hold only weak references
    task_changed.connect(announce, sender=app.extensions["celery"])

    @app.template_global()
    def unread() -> dict[str, int]:
        return unread_counts.unread_counts(current_user.id)
