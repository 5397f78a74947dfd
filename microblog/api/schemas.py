"""What goes in and out of the API as JSON; the OpenAPI document is made from these."""

from __future__ import annotations

import inspect
from typing import Any

import marshmallow
from marshmallow import fields, validate

from microblog.taskqueue import states

MAX_PAGE = 100


class Schema(marshmallow.Schema):
    """A schema whose docstring is its description in the OpenAPI document."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.Meta = type("Meta", (), {"description": inspect.getdoc(cls)})  # type: ignore[assignment,misc]


def _text(description: str, **options: Any) -> fields.String:
    return fields.String(metadata={"description": description}, **options)


def _number(description: str, **options: Any) -> fields.Integer:
    return fields.Integer(metadata={"description": description}, **options)


def _moment(description: str, **options: Any) -> fields.String:
    """A time that is ISO 8601 text already."""
    metadata = {"description": f"{description} ISO 8601 in UTC, ending in Z.", "format": "date-time"}
    return fields.String(metadata=metadata, **options)


class TokenSchema(Schema):
    """A new token."""

    token = _text("Send it as “Authorization: Bearer …”. It is told this once and kept nowhere.", required=True)
    expires_at = _moment("When it stops working.", required=True)


class ExportRequestSchema(Schema):
    """An export takes no options: send nothing, or an empty object."""


class PageQuerySchema(Schema):
    """Which part of a list."""

    before = _text("The key of the page, as found in `next`; the newest items without it.")
    limit = _number("The greatest number of items.", validate=validate.Range(1, MAX_PAGE))


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


class TaskPageSchema(Schema):
    """A part of a user's jobs, newest first."""

    items = fields.List(fields.Nested(TaskSchema), required=True)
    next = _text("The path of the page of older jobs; null on the last one.", required=True, allow_none=True)


class ProblemSchema(Schema):
    """What went wrong (RFC 9457)."""

    type = _text("Always about:blank: the status says what kind of problem it is.", required=True)
    title = _text("The name of the status.", required=True)
    status = _number("The HTTP status.", required=True)
    detail = _text("One sentence for the reader.", required=True)
    errors = fields.Dict(metadata={"description": "With 422: by place (json, query) and field, what is wrong with it."})
    task = _text("With 409: the id of the job that is in the way.")
