"""What goes in and out of the API as JSON; the OpenAPI document is made from these."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import marshmallow
import pytz
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from marshmallow import fields, validate

from config import LANGUAGES
from microblog.accounts.forms import MIN_PASSWORD, MIN_USERNAME
from microblog.accounts.models import MAX_ABOUT_ME, MAX_EMAIL, MAX_PASSWORD, MAX_USERNAME, USERNAME
from microblog.api.models import MAX_TOKEN_NAME
from microblog.lookup import MAX_ID
from microblog.messages import models as messages
from microblog.posts.models import MAX_LENGTH
from microblog.search.find import CANDIDATES
from microblog.search.forms import MAX_LENGTH as MAX_SEARCH
from microblog.taskqueue import states
from microblog.text import is_storable, with_unix_line_ends

MAX_PAGE = 100

# What is said of a value that is missing or of the wrong kind. Each is worded when it is read; in a tuple, since
# marshmallow would add to a list, which all requests share.
_MISSING: Any = {"required": (_l("This is missing."),), "null": (_l("This must not be null."),)}
_NO_TEXT: Any = _MISSING | dict.fromkeys(("invalid", "invalid_utf8"), (_l("This must be text."),))
_NO_NUMBER: Any = _MISSING | dict.fromkeys(("invalid", "too_large"), (_l("This must be a whole number."),))
_NO_LIST: Any = _MISSING | {"invalid": (_l("This must be a list."),)}
# What validators say, which fill in the numbers.
_NOT_BETWEEN: Any = _l("This must be from {min} to {max}.")
_NOT_SO_MANY: Any = _l("This must have {min} to {max} items.")
_NOT_SO_LONG: Any = _l("This must have {min} to {max} characters.")
_TOO_LONG: Any = _l("This must have at most {max} characters.")

_OF_USERNAME = [
    validate.Length(MIN_USERNAME, MAX_USERNAME, error=_NOT_SO_LONG),
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
    """What is sent to us as JSON, in which any other field is refused."""


class _Kept(fields.String):
    """Text that is to be kept: without what no database keeps, and with one character for each line end."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any) -> Any:
        text = super()._deserialize(value, attr, data, **options)
        if not is_storable(text):
            raise marshmallow.ValidationError(_("This has characters that cannot be kept (NUL or half a character)."))
        return with_unix_line_ends(text)


def _text(description: str, **options: Any) -> fields.String:
    return fields.String(metadata={"description": description}, error_messages=_NO_TEXT, **options)


def _kept(description: str, pattern: str | None = None, form: str | None = None, **options: Any) -> fields.String:
    """Text that is to be kept; for the document, the `pattern` that it has, and the `form`: a format of JSON Schema."""
    metadata = {"description": description} | ({"pattern": pattern} if pattern else {})
    return _Kept(metadata=metadata | ({"format": form} if form else {}), error_messages=_NO_TEXT, **options)


def _number(description: str, **options: Any) -> fields.Integer:
    return fields.Integer(metadata={"description": description}, error_messages=_NO_NUMBER, **options)


def _numbers(description: str, **options: Any) -> fields.List[int]:
    """Ids of rows, as many as a page has at most."""
    number = fields.Integer(validate=validate.Range(1, MAX_ID, error=_NOT_BETWEEN), error_messages=_NO_NUMBER)
    several = validate.Length(1, MAX_PAGE, error=_NOT_SO_MANY)
    metadata = {"description": description}
    return fields.List(number, validate=several, metadata=metadata, error_messages=_NO_LIST, **options)


def _flag(description: str, **options: Any) -> fields.Boolean:
    return fields.Boolean(metadata={"description": description}, **options)


def _choice(offered: Sequence[str], description: str, **options: Any) -> fields.String:
    one = validate.OneOf(offered, error=_l("This must be one of those that the documentation lists."))
    return _text(description, validate=one, **options)


def _moment(description: str, **options: Any) -> fields.String:
    """A time that is ISO 8601 text already."""
    metadata = {"description": f"{description} ISO 8601 in UTC, ending in Z.", "format": "date-time"}
    return fields.String(metadata=metadata, **options)


class TokenRequestSchema(RequestSchema):
    """What you may say of a token that you ask for; it may also be nothing."""

    name = _kept(
        "What it is for, for you to know it by.", validate=validate.Length(max=MAX_TOKEN_NAME, error=_TOO_LONG)
    )


class TokenFactsSchema(Schema):
    """One of your tokens; not the token itself, which nobody knows but whoever asked for it."""

    id = _number("Its number, to revoke it by.", required=True)
    name = _text("What it was said to be for; may be empty.", required=True)
    created_at = _moment("When it was made.", required=True)
    last_used_at = _moment("When it was last used, to a minute; null before.", required=True, allow_none=True)
    expires_at = _moment("When it stops working.", required=True)
    current = fields.Boolean(required=True, metadata={"description": "Whether it is the one you sent."})


class TokenSchema(Schema):
    """A new token."""

    token = _text("Send it as “Authorization: Bearer …”. It is told this once and kept nowhere.", required=True)
    expires_at = _moment("When it stops working.", required=True)


class ExportRequestSchema(RequestSchema):
    """An export takes no options: send nothing, or an empty object."""


class PageQuerySchema(Schema):
    """Which part of a list."""

    before = _text("The key of a page, as found in `next` and `prev`.")
    after = _text(
        "The key of a page in the other direction; not beside `before`. Where less than a page is left there, the "
        "answer is the first page, whole, with some that you may have had."
    )
    limit = _number("The greatest number of items.", validate=validate.Range(1, MAX_PAGE, error=_NOT_BETWEEN))


class PageSchema(Schema):
    """A part of a list. Its subclasses say what the `items` are."""

    next = _text("The path of the page behind this one; null on the last one.", required=True, allow_none=True)
    prev = _text("The path of the page before this one; null on the first one.", required=True, allow_none=True)


class TokenPageSchema(PageSchema):
    """A part of your tokens, newest first."""

    items = fields.List(fields.Nested(TokenFactsSchema), required=True)


class UserSchema(Schema):
    """A user."""

    username = _text("Their name; no two differ only in case.", required=True)
    about_me = _text("What they tell of themselves; may be empty.", required=True)
    created_at = _moment("When they joined.", required=True)
    last_seen_at = _moment("When they last opened a page, to the minute; null before.", required=True, allow_none=True)


class ProfileSchema(UserSchema):
    """A user, and whom they know."""

    followers = _number("How many follow them.", required=True, validate=validate.Range(0))
    following = _number("How many they follow.", required=True, validate=validate.Range(0))
    is_followed = fields.Boolean(required=True, metadata={"description": "Whether you follow them."})
    email = _text("Their address; only your own is shown.")
    language = _text("What they read in, null if that is as they ask; only your own is shown.", allow_none=True)
    timezone = _text("In which times are told to them, or null; only your own is shown.", allow_none=True)


class UserPageSchema(PageSchema):
    """A part of a list of users."""

    items = fields.List(fields.Nested(UserSchema), required=True)


class ProfileChangeSchema(RequestSchema):
    """What you change of your profile; the rest stays."""

    language = _choice(
        LANGUAGES,
        "What pages, mails and answers are in; null for what each asks for.",
        attribute="locale",
        allow_none=True,
    )
    timezone = _choice(pytz.common_timezones, "In which times are told; null for that of the device.", allow_none=True)

    username = _kept("Your new name.", _USERNAME, validate=_OF_USERNAME)
    about_me = _kept("What you tell of yourself.", validate=validate.Length(max=MAX_ABOUT_ME, error=_TOO_LONG))


class SignUpSchema(RequestSchema):
    """Who you want to be."""

    username = _kept(
        "A name that nobody has, in whatever case.",
        _USERNAME,
        required=True,
        validate=_OF_USERNAME,
    )
    email = _kept(
        "Where your mail goes. Nobody else sees it.",
        form="email",
        required=True,
        validate=validate.Length(max=MAX_EMAIL, error=_TOO_LONG),
    )
    password = _kept(
        "What only you know.", required=True, validate=validate.Length(MIN_PASSWORD, MAX_PASSWORD, error=_NOT_SO_LONG)
    )


class PostRequestSchema(RequestSchema):
    """A post to be written."""

    body = _kept(
        "What it says; white space around it is left out.",
        r"\S",
        required=True,
        validate=[
            validate.Length(1, MAX_LENGTH, error=_NOT_SO_LONG),
            validate.Regexp(r"(?s).*\S", error=_l("A post needs at least one character that is not a space.")),
        ],
    )


class PostSchema(Schema):
    """A post."""

    id = _number("Its number.", required=True)
    body = _text("What it says.", required=True)
    timestamp = _moment("When it was written.", required=True)
    language = _text(
        "What it is written in, as a BCP 47 tag; null if that cannot be told.", required=True, allow_none=True
    )
    author = _text("The username of who wrote it.", required=True)


class TranslationSchema(Schema):
    """A post in another language."""

    language = _text("What it is translated into, as a BCP 47 tag.", required=True)
    body = _text("What it says in that language.", required=True)


class PostPageSchema(PageSchema):
    """A part of a timeline, newest first."""

    items = fields.List(fields.Nested(PostSchema), required=True)


class SearchQuerySchema(PageQuerySchema):
    """What is sought, and which part of what was found."""

    q = _kept(
        "Words that a post must have. Words in quotes must stand next to each other.",
        r"\S",
        required=True,
        validate=validate.Length(1, MAX_SEARCH, error=_NOT_SO_LONG),
    )


class SearchPageSchema(PostPageSchema):
    """A part of what was found, the best first."""

    truncated = _flag(
        f"Whether so many posts have this that only {CANDIDATES} were looked at: the newest written here, then those "
        "imported.",
        required=True,
    )


class MessageRequestSchema(RequestSchema):
    """A message to be sent."""

    to = _kept("The username of whom it is for.", required=True)
    message = _kept(
        f"What it says, in at most {messages.MAX_LENGTH} characters; white space around it is left out.",
        r"\S",
        required=True,
    )


class MessageSchema(Schema):
    """A message between you and somebody."""

    id = _number("Its number.", required=True)
    body = _text("What it says.", required=True)
    timestamp = _moment("When it was sent.", required=True)
    sender = _text("The username of who wrote it.", required=True, data_key="from")
    recipient = _text("The username of whom it is for.", required=True, data_key="to")
    read = _flag("Whether you have read it. What you wrote yourself, you have.", required=True)


class MessagePageSchema(PageSchema):
    """A part of your messages, newest first."""

    items = fields.List(fields.Nested(MessageSchema), required=True)


class MessagesReadSchema(RequestSchema):
    """Which messages you have read."""

    ids = _numbers("Their numbers.", required=True)


class NotificationSchema(Schema):
    """Something that happened to you."""

    id = _number("Its number.", required=True)
    kind = _text("What it is: message, follower, or the name of a job's first task.", required=True)
    subject = _text("What it is about, as its kind has it; you have one of each kind and subject.", required=True)
    sentence = _text("The same in your language.", required=True)
    link = _text("The path of the page that shows it.", required=True)
    timestamp = _moment("When it happened last.", required=True)
    read = _flag("Whether you have read it.", required=True)


class NotificationPageSchema(PageSchema):
    """A part of what you were told, newest first."""

    items = fields.List(fields.Nested(NotificationSchema), required=True)


class NotificationsReadSchema(RequestSchema):
    """What of all that you were told you have read; send nothing, or an empty object, for all of it."""

    ids = _numbers("The numbers of some.")


class ProgressSchema(Schema):
    """How far something is."""

    current = _number("What has been done, in the task's own unit.", required=True)
    total = _number("What there is to do in that unit; null where it is not known.", required=True, allow_none=True)
    percent = _number("0 to 100.", required=True, validate=validate.Range(0, 100))
    message = _text("The same as a line for the user; may be empty.", required=True)


class StepSchema(Schema):
    """One step of a job: one Celery task."""

    id = _text("The id of the task; Celery's own.", required=True)
    name = _text("What kind of task it is, such as export_posts.", required=True)
    description = _text("What it does, in its user's language.", required=True)
    state = _text("How it stands, in Celery's words.", required=True, validate=validate.OneOf(states.ALL))
    progress = fields.Nested(ProgressSchema, required=True)
    result = fields.Dict(
        required=True, allow_none=True, metadata={"description": "What it made; null until it has succeeded."}
    )
    error = _text("Why it failed, or is to be tried again: one sentence.", required=True, allow_none=True)
    attempts = _number("How often a worker has begun it.", required=True)
    created_at = _moment("When it was asked for.", required=True)
    started_at = _moment("When a worker first began it.", required=True, allow_none=True)
    finished_at = _moment("When it ended.", required=True, allow_none=True)


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
    retried_from = _text("The id of the job that this one tries again.", required=True, allow_none=True)
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

    number = _number("Its place in the list that the file has, from 1.", required=True)
    line = _number("The line of the file in which it begins, from 1.", required=True)
    reason = _text("Why: one sentence.", required=True)
    address = _text("Where it can be read elsewhere; null if the file does not say.", required=True, allow_none=True)


class RefusalPageSchema(PageSchema):
    """A part of what an import could not keep, in the order of the file."""

    items = fields.List(fields.Nested(RefusalSchema), required=True)


class ProblemSchema(Schema):
    """What went wrong (RFC 9457)."""

    type = _text("Always about:blank: the status says what kind of problem it is.", required=True)
    title = _text("The name of the status.", required=True)
    status = _number("The HTTP status.", required=True)
    detail = _text("One sentence for the reader.", required=True)
    errors = fields.Dict(metadata={"description": "With 422: by place (json, query) and field, what is wrong with it."})
    task = _text("With 409: the id of the job that is in the way.")
