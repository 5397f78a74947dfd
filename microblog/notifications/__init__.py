"""What a user is told: rows, and what of them and of jobs reaches an open browser, live or by asking."""

from __future__ import annotations

import math

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the routes, listen to what the engine announces, and give every template the reader's badges."""
    from flask_login import current_user

    from microblog.notifications import badges
    from microblog.notifications.live import Hub, publish_change
    from microblog.notifications.outcomes import note_outcome
    from microblog.notifications.routes import bp
    from microblog.taskqueue.signals import TaskChange, task_changed

    def announce(sender: object, change: TaskChange) -> None:
        publish_change(app, change)
        note_outcome(app, change)

    app.register_blueprint(bp)
    most = app.config["STREAMS_PER_USER"] if app.config["RATELIMIT_ENABLED"] else math.inf
    app.extensions["hub"] = Hub(app.extensions["redis"], most)
    app.extensions["announce"] = announce  # signals keep only weak references
    task_changed.connect(announce, sender=app.extensions["celery"])

    @app.template_global()
    def unread() -> dict[str, int]:
        return badges.unread(current_user.id)
