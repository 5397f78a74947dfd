"""What reaches an open browser: the live stream, and the polling fallback."""

from __future__ import annotations

from flask import Flask


def init_app(app: Flask) -> None:
    """Register the routes, and listen to what the engine announces."""
    from microblog.notifications.live import Hub, publish_change
    from microblog.notifications.routes import bp
    from microblog.taskqueue.signals import TaskChange, task_changed

    def announce(sender: object, change: TaskChange) -> None:
        publish_change(app, change)

    app.register_blueprint(bp)
    app.extensions["hub"] = Hub(app.extensions["redis"])
    app.extensions["announce"] = announce  # signals keep only weak references
    task_changed.connect(announce, sender=app.extensions["celery"])
