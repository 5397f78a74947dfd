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
from microblog.api.fields import (
    MAX_PAGE,
    NOT_BETWEEN,
    NOT_SO_LONG,
    SEEN,
    TOO_LONG,
    choice,
    flag,
    ids,
    integer,
    kept,
    moment,
    text,
)
from microblog.api.models import MAX_TOKEN_NAME
from microblog.messages import models as messages
from microblog.posts.models import MAX_LENGTH
from microblog.search.find import CANDIDATES
from microblog.search.forms import MAX_LENGTH as MAX_SEARCH
from microblog.taskqueue import states

_OF_USERNAME = [
    validate.Length(MIN_USERNAME, MAX_USERNAME, error=NOT_SO_LONG),
    validate.Regexp(USERNAME, error=_l("Use letters without accents, digits, and the characters _ . - only.")),
]
_USERNAME = r"^[A-Za-z0-9_.\-]+$"  # for the document: ECMAScript's $ is the very end, Python's is not


class Schema(marshmallow.Schema):
    """A schema whose docstring is its description in the OpenAPI document."""

    error_messages: Any = {"type": _l("This must be an object."), "unknown": _l("There is no such field.")}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.Meta = type("Meta", (), {"description": inspect.getdoc(cls)})  # type: ignore[assignment,misc]


class RequestSchema(Schema):
    """A request body, in which unknown fields are refused."""


class TokenRequestSchema(RequestSchema):
    """Options of a new token; the body may be empty."""

    name = kept("What it is for, for you to know it by.", validate=validate.Length(max=MAX_TOKEN_NAME, error=TOO_LONG))


class TokenFactsSchema(Schema):
    """One of your tokens; not the token itself, which nobody knows but whoever asked for it."""

    id = integer("Its number, to revoke it by.", required=True)
    name = text("What it was said to be for; may be empty.", required=True)
    created_at = moment("When it was made.", required=True)
    last_used_at = moment("When it was last used, to a minute; null before.", required=True, allow_none=True)
    expires_at = moment("When it stops working.", required=True)
    current = fields.Boolean(required=True, metadata={"description": "Whether it is the one you sent."})


class TokenSchema(Schema):
    """A new token."""

    token = text("Send it as “Authorization: Bearer …”. It is told this once and kept nowhere.", required=True)
    expires_at = moment("When it stops working.", required=True)


class ExportRequestSchema(RequestSchema):
    """An export takes no options: send nothing, or an empty object."""


class PageQuerySchema(Schema):
    """The page of a list."""

    before = text("The key of a page, as found in `next` and `prev`.")
    after = text(
        "The key of a page in the other direction; not beside `before`. Where less than a page is left there, the "
        "answer is the first page, whole, with some that you may have had."
    )
    limit = integer("The greatest number of items.", validate=validate.Range(1, MAX_PAGE, error=NOT_BETWEEN))


class PageSchema(Schema):
    """A part of a list. Its subclasses say what the `items` are."""

    next = text("The path of the page behind this one; null on the last one.", required=True, allow_none=True)
    prev = text("The path of the page before this one; null on the first one.", required=True, allow_none=True)


class TokenPageSchema(PageSchema):
    """A part of your tokens, newest first."""

    items = fields.List(fields.Nested(TokenFactsSchema), required=True)


class UserSchema(Schema):
    """A user."""

    username = text("Their name; no two differ only in case.", required=True)
    about_me = text("What they tell of themselves; may be empty.", required=True)
    created_at = moment("When they joined.", required=True)
    last_seen_at = moment("When they last opened a page, to the minute; null before.", required=True, allow_none=True)


class ProfileSchema(UserSchema):
    """A user, and whom they know."""

    followers = integer("How many follow them.", required=True, validate=validate.Range(0))
    following = integer("How many they follow.", required=True, validate=validate.Range(0))
    is_followed = fields.Boolean(required=True, metadata={"description": "Whether you follow them."})
    email = text("Their address; only your own is shown.")
    language = text("What they read in, null if that is as they ask; only your own is shown.", allow_none=True)
    timezone = text("In which times are told to them, or null; only your own is shown.", allow_none=True)


class UserPageSchema(PageSchema):
    """A part of a list of users."""

    items = fields.List(fields.Nested(UserSchema), required=True)


class ProfileChangeSchema(RequestSchema):
    """Changes of your profile; fields that are left out stay."""

    language = choice(
        LANGUAGES,
        "What pages, mails and answers are in; null for what each asks for.",
        attribute="locale",
        allow_none=True,
    )
    timezone = choice(pytz.common_timezones, "In which times are told; null for that of the device.", allow_none=True)

    username = kept("Your new name.", _USERNAME, validate=_OF_USERNAME)
    about_me = kept("What you tell of yourself.", validate=validate.Length(max=MAX_ABOUT_ME, error=TOO_LONG))


class SignUpSchema(RequestSchema):
    """A new account."""

    username = kept(
        "A name that nobody has, in whatever case.",
        _USERNAME,
        required=True,
        validate=_OF_USERNAME,
    )
    email = kept(
        "Where your mail goes. Nobody else sees it.",
        form="email",
        required=True,
        validate=validate.Length(max=MAX_EMAIL, error=TOO_LONG),
    )
    password = kept(
        "What only you know.", required=True, validate=validate.Length(MIN_PASSWORD, MAX_PASSWORD, error=NOT_SO_LONG)
    )


class PostRequestSchema(RequestSchema):
    """A post to be written."""

    body = kept(
        "What it says; white space around it is left out.",
        SEEN,
        required=True,
        validate=[
            validate.Length(1, MAX_LENGTH, error=NOT_SO_LONG),
            validate.Regexp(r"(?s).*\S", error=_l("A post needs at least one character that is not a space.")),
        ],
    )


class PostSchema(Schema):
    """A post."""

    id = integer("Its number.", required=True)
    body = text("What it says.", required=True)
    timestamp = moment("When it was written.", required=True)
    language = text(
        "What it is written in, as a BCP 47 tag; null if that cannot be told.", required=True, allow_none=True
    )
    author = text("The username of who wrote it.", required=True)


class TranslationSchema(Schema):
    """A post in another language."""

    language = text("What it is translated into, as a BCP 47 tag.", required=True)
    body = text("What it says in that language.", required=True)


class PostPageSchema(PageSchema):
    """A part of a timeline, newest first."""

    items = fields.List(fields.Nested(PostSchema), required=True)


class SearchQuerySchema(PageQuerySchema):
    """A search, and the page of its results."""

    q = kept(
        "Words that a post must have. Words in quotes must stand next to each other.",
        r"\S",
        required=True,
        validate=validate.Length(1, MAX_SEARCH, error=NOT_SO_LONG),
    )


class SearchPageSchema(PostPageSchema):
    """A part of what was found, the best first."""

    truncated = flag(
        f"Whether so many posts have this that only {CANDIDATES} were looked at: the newest written here, then those "
        "imported.",
        required=True,
    )


class MessageRequestSchema(RequestSchema):
    """A message to be sent."""

    to = kept("The username of whom it is for.", required=True)
    message = kept(
        f"What it says, in at most {messages.MAX_LENGTH} characters; white space around it is left out.",
        SEEN,
        required=True,
    )


class MessageSchema(Schema):
    """A message between you and somebody."""

    id = integer("Its number.", required=True)
    body = text("What it says.", required=True)
    timestamp = moment("When it was sent.", required=True)
    sender = text("The username of who wrote it.", required=True, data_key="from")
    recipient = text("The username of whom it is for.", required=True, data_key="to")
    read = flag("Whether you have read it. What you wrote yourself, you have.", required=True)


class MessagePageSchema(PageSchema):
    """A part of your messages, newest first."""

    items = fields.List(fields.Nested(MessageSchema), required=True)


class MessagesReadSchema(RequestSchema):
    """The messages to mark as read."""

    ids = ids("Their numbers.", required=True)


class NotificationSchema(Schema):
    """Something that happened to you."""

    id = integer("Its number.", required=True)
    kind = text("What it is: message, follower, or the name of a job's first task.", required=True)
    subject = text("What it is about, as its kind has it; you have one of each kind and subject.", required=True)
    sentence = text("The same in your language.", required=True)
    link = text("The path of the page that shows it.", required=True)
    timestamp = moment("When it happened last.", required=True)
    read = flag("Whether you have read it.", required=True)


class NotificationPageSchema(PageSchema):
    """A part of what you were told, newest first."""

    items = fields.List(fields.Nested(NotificationSchema), required=True)


class NotificationsReadSchema(RequestSchema):
    """The notifications to mark as read; send nothing, or an empty object, for all of them."""

    ids = ids("The numbers of some.")


class ProgressSchema(Schema):
    """The progress of a task."""

    current = integer("What has been done, in the task's own unit.", required=True)
    total = integer("What there is to do in that unit; null where it is not known.", required=True, allow_none=True)
    percent = integer("0 to 100.", required=True, validate=validate.Range(0, 100))
    message = text("The same as a line for the user; may be empty.", required=True)


class StepSchema(Schema):
    """One step of a job: one Celery task."""

    id = text("The id of the task; Celery's own.", required=True)
    name = text("What kind of task it is, such as export_posts.", required=True)
    description = text("What it does, in its user's language.", required=True)
    state = text("How it stands, in Celery's words.", required=True, validate=validate.OneOf(states.ALL))
    progress = fields.Nested(ProgressSchema, required=True)
    result = fields.Dict(
        required=True, allow_none=True, metadata={"description": "What it made; null until it has succeeded."}
    )
    error = text("Why it failed, or is to be tried again: one sentence.", required=True, allow_none=True)
    attempts = integer("How often a worker has begun it.", required=True)
    created_at = moment("When it was asked for.", required=True)
    started_at = moment("When a worker first began it.", required=True, allow_none=True)
    finished_at = moment("When it ended.", required=True, allow_none=True)


class TaskSchema(StepSchema):
    """A task, with all the steps of the job that it belongs to.

    Under the id of a job, which is that of its first step, `state`, `progress`, `error`, `attempts` and
    `finished_at` tell of the job as a whole: it is unfinished until its last step has ended. Under the id of
    a later step they tell of that step alone. `steps` is the same under each of these ids, and so is what
    cancel and retry do: they act on the job.
    """

    cancel_requested = fields.Boolean(
        required=True, metadata={"description": "Whether the job was told to stop and has yet to."}
    )
    retried_from = text("The id of the job that this one tries again.", required=True, allow_none=True)
    steps = fields.List(
        fields.Nested(StepSchema),
        required=True,
        metadata={"description": "The job, step by step, the first first."},
    )


class TaskPageSchema(PageSchema):
    """A part of your jobs, newest first."""

    items = fields.List(fields.Nested(TaskSchema), required=True)


class RefusalSchema(Schema):
    """An entry of a file that could not be imported."""

    number = integer("Its place in the list that the file has, from 1.", required=True)
    line = integer("The line of the file in which it begins, from 1.", required=True)
    reason = text("Why: one sentence.", required=True)
    address = text("Where it can be read elsewhere; null if the file does not say.", required=True, allow_none=True)


class RefusalPageSchema(PageSchema):
    """A part of what an import could not keep, in the order of the file."""

    items = fields.List(fields.Nested(RefusalSchema), required=True)


class ProblemSchema(Schema):
    """An error (RFC 9457)."""

    type = text("Always about:blank: the status says what kind of problem it is.", required=True)
    title = text("The name of the status.", required=True)
    status = integer("The HTTP status.", required=True)
    detail = text("One sentence for the reader.", required=True)
    errors = fields.Dict(metadata={"description": "With 422: by place (json, query) and field, what is wrong with it."})
    task = text("With 409: the id of the job that is in the way.")
