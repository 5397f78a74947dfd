"""Where uploaded files wait for their import."""

from __future__ import annotations

from flask import current_app

from microblog.storage import Storage


def current_storage() -> Storage:
    """The storage that ``IMPORT_STORAGE_URL`` names."""
    return Storage(current_app.config["IMPORT_STORAGE_URL"])
