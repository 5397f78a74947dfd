"""Every model of the application, for ``from microblog.models import User, Post, Task``."""

from __future__ import annotations

from microblog.accounts.models import EmailChange, Follow, User
from microblog.api.models import ApiToken
from microblog.error_reports.models import ErrorReport
from microblog.exports.models import Archive
from microblog.imports.models import RejectedEntry, Upload
from microblog.mail.models import SentMail
from microblog.messages.models import Message
from microblog.monitoring.models import RollUp, TaskHour, TaskTotal
from microblog.notifications.models import Notification
from microblog.posts.models import Post, Translation
from microblog.taskqueue.models import Task

__all__ = [
    "ApiToken",
    "Archive",
    "EmailChange",
    "ErrorReport",
    "Follow",
    "Message",
    "Notification",
    "Post",
    "RejectedEntry",
    "RollUp",
    "SentMail",
    "Task",
    "TaskHour",
    "TaskTotal",
    "Translation",
    "Upload",
    "User",
]
