"""Where archives are kept."""

from __future__ import annotations

from flask import current_app

from microblog.storage import Storage


def current_storage() -> Storage:
    """The storage that ``EXPORT_STORAGE_URL`` names."""
    return Storage(current_app.config["EXPORT_STORAGE_URL"])
