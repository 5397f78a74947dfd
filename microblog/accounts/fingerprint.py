"""What a cookie or a mailed link keeps of facts, so that it ends when one of them changes."""

from __future__ import annotations

import hmac

from flask import current_app

LENGTH = 32  # hex digits: 128 bits


def fingerprint(purpose: str, *facts: str) -> str:
    """A digest of `facts`, keyed with ``SECRET_KEY``: it tells nothing of them, and fits no other `purpose`."""
    key: str = current_app.config["SECRET_KEY"]
    return hmac.digest(key.encode(), "\0".join((purpose, *facts)).encode(), "sha256").hex()[:LENGTH]
