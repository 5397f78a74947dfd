"""The Celery app of an older release, for `celery -A tests.support.old_release`.

It has neither the tests' tasks nor those named in MISSING_TASKS.
"""

from __future__ import annotations

import os

from celery_app import app

for name in os.environ.get("MISSING_TASKS", "").split():
    app.tasks.unregister(name)

__all__ = ["app"]
