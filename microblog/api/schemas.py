"""Marshmallow schemas of requests and responses; the OpenAPI document is generated from them."""

from __future__ import annotations

import inspect
from typing import Any

import marshmallow
import pytz
from flask_babel import lazy_gettext as _l
from marshmallow import fields, validate

from config import LANGUAGES
from microblog.accounts.forms import MIN_PASSWORD, MIN_USERNAME
from microblog.accounts.models import MAX_ABOUT_ME, MAX_EMAIL, MAX_PASSWORD, MAX_USERNAME, USERNAME
from microblog.api.auth import caller, presented_token
from microblog.api.fields import (
    MAX_PAGE,
    NOT_BLANK,
    OUT_OF_RANGE,
    TOO_LONG,
    WRONG_LENGTH,
    choice,
    flag,
    ids,
    integer,
    moment,
    stored_text,
    text,
)
from microblog.api.models import MAX_TOKEN_NAME
from microblog.messages.models import MAX_MESSAGE
from microblog.posts.models import MAX_POST
from microblog.search.find import MAX_CANDIDATES
from microblog.search.query import MAX_QUERY
from microblog.taskqueue import states

_OF_USERNAME = [
    validate.Length(MIN_USERNAME, MAX_USERNAME, error=WRONG_LENGTH),
    validate.Regexp(USERNAME, error=_l("Use letters without accents, digits, and the characters _ . - only.")),
]
_USERNAME = r"^[A-Za-z0-9_.\-]+$"  # for the document: $ only matches the very end in ECMAScript, not in Python


class Schema(marshmallow.Schema):
    """A schema whose docstring is its description in the OpenAPI document."""

    error_messages: Any = {"type": _l("This must be an object."), "unknown": _l("There is no such field.")}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.Meta = type("Meta", (), {"description": inspect.getdoc(cls)})  # type: ignore[assignment,misc]


class RequestSchema(Schema):
    """A request body; unknown fields are rejected."""


class TokenRequestSchema(RequestSchema):
    """Options of a new token; the body may be empty."""

    name = stored_text(
        "A name that describes its purpose.", validate=validate.Length(max=MAX_TOKEN_NAME, error=TOO_LONG)
    )


class TokenInfoSchema(Schema):
    """One of your tokens. The token itself is only returned when it is created."""

    id = integer("The id of the token, used to revoke it.", required=True)
    name = text("The name that it was created with; may be empty.", required=True)
    created_at = moment("When it was created.", required=True)
    last_used_at = moment("When it was last used, to the minute; null if never.", required=True, allow_none=True)
    expires_at = moment("When it expires.", required=True)
    current = flag(
        "Whether it is the token of this request.", lambda token: token.id == presented_token().id, required=True
    )


class TokenSchema(Schema):
    """A new token."""

    token = text("Send it as “Authorization: Bearer …”. It is not stored and is only returned once.", required=True)
    expires_at = moment("When it expires.", required=True)


class ExportRequestSchema(RequestSchema):
    """An export has no options; the body is empty or an empty object."""


class PageQuerySchema(Schema):
    """The page of a list to return."""

    before = text("The key of a page, as found in `next` or `prev`.")
    after = text(
        "The key of a page in the other direction; cannot be combined with `before`. If less than a page is left in "
        "that direction, the response is the full first page, including items that you may already have."
    )
    limit = integer("The maximum number of items.", validate=validate.Range(1, MAX_PAGE, error=OUT_OF_RANGE))


class PageSchema(Schema):
    """A page of a list. Subclasses define the `items`."""

    next = text("The path of the next page; null on the last page.", required=True, allow_none=True)
    prev = text("The path of the previous page; null on the first page.", required=True, allow_none=True)


class TokenPageSchema(PageSchema):
    """A page of your tokens, newest first."""

    items = fields.List(fields.Nested(TokenInfoSchema), required=True)


class UserSchema(Schema):
    """A user."""

    username = text("The username; unique regardless of case.", required=True)
    about_me = text("The profile text; may be empty.", required=True)
    created_at = moment("When they signed up.", required=True)
    last_seen_at = moment("When they last opened a page, to the minute; null if never.", required=True, allow_none=True)


class ProfileSchema(UserSchema):
    """A user, with the numbers of followers and followed users."""

    followers = integer("The number of followers.", required=True, validate=validate.Range(0))
    following = integer("The number of users that the user follows.", required=True, validate=validate.Range(0))
    is_followed = flag("Whether you follow the user.", required=True)
    email = text("The email address; only included for yourself.")
    language = text("The language, or null for that of each request; only included for yourself.", allow_none=True)
    timezone = text("The time zone, or null for that of the device; only included for yourself.", allow_none=True)


class UserPageSchema(PageSchema):
    """A page of a list of users."""

    items = fields.List(fields.Nested(UserSchema), required=True)


class ProfileChangeSchema(RequestSchema):
    """Changes to your profile; omitted fields are not changed."""

    language = choice(
        LANGUAGES,
        "The language of pages, mails and responses; null for that of each request.",
        attribute="locale",
        allow_none=True,
    )
    timezone = choice(pytz.common_timezones, "Your time zone; null for that of the device.", allow_none=True)

    username = stored_text("Your new username.", _USERNAME, validate=_OF_USERNAME)
    about_me = stored_text("Your profile text.", validate=validate.Length(max=MAX_ABOUT_ME, error=TOO_LONG))


class SignUpSchema(RequestSchema):
    """A new account."""

    username = stored_text(
        "A username that is not taken, regardless of case.",
        _USERNAME,
        required=True,
        validate=_OF_USERNAME,
    )
    email = stored_text(
        "Your email address. It is not shown to other users.",
        form="email",
        required=True,
        validate=validate.Length(max=MAX_EMAIL, error=TOO_LONG),
    )
    password = stored_text(
        "Your password.", required=True, validate=validate.Length(MIN_PASSWORD, MAX_PASSWORD, error=WRONG_LENGTH)
    )


class PostRequestSchema(RequestSchema):
    """A new post."""

    body = stored_text(
        "The text of the post; leading and trailing white space is removed.",
        NOT_BLANK,
        required=True,
        validate=[
            validate.Length(1, MAX_POST, error=WRONG_LENGTH),
            validate.Regexp(r"(?s).*\S", error=_l("A post needs at least one character that is not a space.")),
        ],
    )


class PostSchema(Schema):
    """A post."""

    id = integer("The id of the post.", required=True)
    body = text("The text of the post.", required=True)
    timestamp = moment("When it was written.", required=True)
    language = text(
        "The language of the text, as a BCP 47 tag; null if it could not be detected.", required=True, allow_none=True
    )
    author = text("The username of the author.", required=True, attribute="author.username")


class TranslationSchema(Schema):
    """The translation of a post."""

    language = text("The language of the translation, as a BCP 47 tag.", required=True)
    body = text("The translated text.", required=True)


class PostPageSchema(PageSchema):
    """A page of a timeline, newest first."""

    items = fields.List(fields.Nested(PostSchema), required=True)


class SearchQuerySchema(PageQuerySchema):
    """A search, and the page of its results to return."""

    q = stored_text(
        "The words that a post must contain. Words in quotes must be next to each other.",
        r"\S",
        required=True,
        validate=validate.Length(1, MAX_QUERY, error=WRONG_LENGTH),
    )


class SearchPageSchema(PostPageSchema):
    """A page of search results, best match first."""

    truncated = flag(
        f"Whether so many posts match that only {MAX_CANDIDATES} were ranked: the newest posts written here, then "
        "imported ones.",
        required=True,
    )


class MessageRequestSchema(RequestSchema):
    """A message to send."""

    to = stored_text("The username of the recipient.", required=True)
    message = stored_text(
        f"The text, at most {MAX_MESSAGE} characters; leading and trailing white space is removed.",
        NOT_BLANK,
        required=True,
    )


class MessageSchema(Schema):
    """A message between you and another user."""

    id = integer("The id of the message.", required=True)
    body = text("The text of the message.", required=True)
    timestamp = moment("When it was sent.", required=True)
    sender = text("The username of the sender.", required=True, data_key="from", attribute="sender.username")
    recipient = text("The username of the recipient.", required=True, data_key="to", attribute="recipient.username")
    read = flag(
        "Whether you have read it; true for messages that you sent.",
        lambda message: message.sender_id == caller().id or message.read_at is not None,
        required=True,
    )


class MessagePageSchema(PageSchema):
    """A page of your messages, newest first."""

    items = fields.List(fields.Nested(MessageSchema), required=True)


class MessagesReadSchema(RequestSchema):
    """The messages to mark as read."""

    ids = ids("The ids of the messages.", required=True)


class NotificationSchema(Schema):
    """A notification of an event that concerns you."""

    id = integer("The id of the notification.", required=True)
    kind = text("The kind: message, follower, or the name of a job's first task.", required=True)
    subject = text("The subject, which depends on the kind. Each kind and subject occurs once.", required=True)
    sentence = text("The notification as a sentence in your language.", required=True)
    link = text("The path of the page that shows the subject.", required=True)
    timestamp = moment("When the event last occurred.", required=True)
    read = flag("Whether you have read it.", required=True)


class NotificationPageSchema(PageSchema):
    """A page of your notifications, newest first."""

    items = fields.List(fields.Nested(NotificationSchema), required=True)


class NotificationsReadSchema(RequestSchema):
    """The notifications to mark as read; an empty body or an empty object means all of them."""

    ids = ids("The ids of the notifications.")


class ProgressSchema(Schema):
    """The progress of a task."""

    current = integer("The amount of completed work, in the task's own unit.", required=True)
    total = integer("The total amount of work in that unit; null if it is unknown.", required=True, allow_none=True)
    percent = integer("The completed percentage, 0 to 100.", required=True, validate=validate.Range(0, 100))
    message = text("The progress as a line of text for the user; may be empty.", required=True)


class StepSchema(Schema):
    """One step of a job: a Celery task."""

    id = text("The id of the Celery task.", required=True)
    name = text("The name of the Celery task, such as export_posts.", required=True)
    description = text("A description of the task, in its user's language.", required=True)
    state = text("The Celery state of the task.", required=True, validate=validate.OneOf(states.ALL))
    progress = fields.Nested(ProgressSchema, required=True)
    result = fields.Dict(
        required=True, allow_none=True, metadata={"description": "The result of the task; null until it has succeeded."}
    )
    error = text("Why the task failed or is retried, in one sentence.", required=True, allow_none=True)
    attempts = integer("How many times a worker has started the task.", required=True)
    created_at = moment("When it was requested.", required=True)
    started_at = moment("When a worker first started the task.", required=True, allow_none=True)
    finished_at = moment("When it ended.", required=True, allow_none=True)


class TaskSchema(StepSchema):
    """A task, with all steps of its job.

    For the id of a job, which is the id of its first step, `state`, `progress`, `error`, `attempts` and
    `finished_at` describe the job as a whole: it is unfinished until its last step has ended. For the id of
    a later step they describe only that step. `steps` is the same for each of these ids. Cancel and retry
    always apply to the whole job.
    """

    cancel_requested = flag("Whether cancellation was requested and the job has not ended.", required=True)
    retried_from = text("The id of the job that this one retries.", required=True, allow_none=True)
    steps = fields.List(
        fields.Nested(StepSchema),
        required=True,
        metadata={"description": "The steps of the job, in order."},
    )


class TaskPageSchema(PageSchema):
    """A page of your jobs, newest first."""

    items = fields.List(fields.Nested(TaskSchema), required=True)


class RejectedEntrySchema(Schema):
    """An entry of a file that could not be imported."""

    number = integer("The position in the list of the file, from 1.", required=True)
    line = integer("The line of the file in which the entry begins, from 1.", required=True)
    reason = text("The reason, in one sentence.", required=True)
    address = text(
        "The URL of the original; null if the file has none.", required=True, allow_none=True, attribute="url"
    )


class RejectedEntryPageSchema(PageSchema):
    """A page of the entries that an import rejected, in the order of the file."""

    items = fields.List(fields.Nested(RejectedEntrySchema), required=True)


class ProblemSchema(Schema):
    """An error (RFC 9457)."""

    type = text("Always about:blank: the status identifies the problem.", required=True)
    title = text("The name of the status.", required=True)
    status = integer("The HTTP status.", required=True)
    detail = text("One sentence that explains the error.", required=True)
    errors = fields.Dict(metadata={"description": "With 422: the errors by location (json, query) and field."})
    task = text("With 409: the id of the job that is already running.")
