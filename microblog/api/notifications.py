"""/api/notifications: notifications of the caller."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from microblog.api.auth import caller, require_token
from microblog.api.blueprint import Blueprint
from microblog.api.pagination import Answer, newest_first
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
    description="What you were told.",
    guard=require_token,
)


@bp.get("")
@bp.lists(NotificationPageSchema)
@bp.refuses(HTTPStatus.UNAUTHORIZED)
def index(query: dict[str, Any]) -> Answer:
    """List what you were told, newest first; a page leaves out what is gone meanwhile."""
    page = notifications_of(caller().id, query.get("before"), query.get("after"), query.get("limit"))
    told = renderers.render_notifications(page.items)
    return newest_first(query, page, (_facts(row, told[row.id]) for row in page.items if row.id in told))


@bp.post("/read")
@bp.arguments(NotificationsReadSchema, required=False)
@bp.response(HTTPStatus.NO_CONTENT)
@bp.refuses(HTTPStatus.UNAUTHORIZED)
def read(which: dict[str, Any]) -> None:
    """Mark what you were told as read: all of it, or that with the `ids`. It is no fault if it is, or is gone."""
    chosen = [Notification.id.in_(which["ids"])] if "ids" in which else []
    push.mark_read_and_push(caller().id, *chosen)


def _facts(row: Notification, told: RenderedNotification) -> dict[str, Any]:
    return {
        "id": row.id,
        "kind": row.name,
        "subject": row.subject,
        "sentence": told.sentence,
        "link": told.address,
        "timestamp": iso(row.timestamp),
        "read": row.read_at is not None,
    }
