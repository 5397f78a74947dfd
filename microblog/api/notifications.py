"""/api/notifications: notifications of the caller."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from microblog.api.auth import caller
from microblog.api.blueprint import Blueprint
from microblog.api.responses import PageResponse, page_request, page_response
from microblog.api.schemas import NotificationPageSchema, NotificationsReadSchema
from microblog.clock import iso
from microblog.notifications import push, renderers
from microblog.notifications.models import Notification
from microblog.notifications.renderers import RenderedNotification
from microblog.notifications.services import notifications_of

bp = Blueprint(
    "api_notifications",
    __name__,
    url_prefix="/api/notifications",
    tag="notifications",
    description="Your notifications.",
)


@bp.get("")
@bp.lists(NotificationPageSchema)
def index(query: dict[str, Any]) -> PageResponse:
    """List your notifications, newest first.

    A page omits notifications about objects that no longer exist.
    """
    page = notifications_of(caller().id, page_request(query))
    rendered = renderers.render_notifications(page.items)
    return page_response(query, page, (_to_json(row, rendered[row.id]) for row in page.items if row.id in rendered))


@bp.post("/read")
@bp.arguments(NotificationsReadSchema, required=False)
@bp.response(HTTPStatus.NO_CONTENT)
def read(data: dict[str, Any]) -> None:
    """Mark all notifications as read, or those with the `ids`.

    Notifications that are already read or no longer exist are ignored.
    """
    conditions = [Notification.id.in_(data["ids"])] if "ids" in data else []
    push.mark_read_and_push(caller().id, *conditions)


def _to_json(row: Notification, rendered: RenderedNotification) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.name,
        "subject": row.subject,
        "sentence": rendered.message,
        "link": rendered.url,
        "timestamp": iso(row.timestamp),
        "read": row.read_at is not None,
    }
