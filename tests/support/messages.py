"""Messages as kombu stores them in queues and sends them on channels."""

from __future__ import annotations

import base64
import json
from typing import Any


def encode(value: Any) -> str:
    """Return the body of a message."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def message(headers: Any = None, **changes: Any) -> dict[str, Any]:
    """Return a message as kombu stores it, of the task noop unless `headers` or `changes` say otherwise."""
    properties = {
        "delivery_tag": "tag",
        "delivery_info": {"exchange": "microblog", "routing_key": "default"},
        "body_encoding": "base64",
    }
    return {
        "body": encode([[], {}, {}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "noop", "id": "1"} if headers is None else headers,
        "properties": properties | changes.pop("properties", {}),
    } | changes
