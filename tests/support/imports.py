"""Import files: their content, and the uploads in the storage."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery.result import EagerResult
from flask import current_app

from microblog.accounts.models import User
from microblog.clock import utcnow
from microblog.extensions import db
from microblog.imports.models import Upload, upload_storage
from microblog.imports.tasks import import_posts
from tests.support.factories import BEGINNING


def post(body: Any, hours: float = 0, **more: Any) -> dict[str, Any]:
    return {"body": body, "timestamp": (BEGINNING + timedelta(hours=hours)).isoformat(), **more}


def archive(*posts: Any) -> bytes:
    return json.dumps({"posts": posts}).encode()


def store(user: User, content: bytes) -> Upload:
    """Store a file as an upload of the user."""
    upload = Upload(user_id=user.id, expires_at=utcnow() + timedelta(hours=1))
    db.session.add(upload)
    db.session.commit()
    with upload_storage().new(upload.path) as file:
        file.write([content])
    return upload


def run_import(user: User, upload: Upload) -> EagerResult:
    """Run the import task in this process."""
    outcome = import_posts.apply(args=[user.id, upload.id])
    db.session.rollback()
    return outcome


def files() -> list[str]:
    """Return the names of the stored files, complete or not."""
    root = Path(current_app.config["IMPORT_STORAGE_URL"])
    return sorted(path.name for path in root.rglob("*.json"))
