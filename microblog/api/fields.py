"""Marshmallow fields with translated error messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import marshmallow
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from marshmallow import fields, validate

from microblog.clock import iso
from microblog.validators import MAX_ID, is_storable, normalize_newlines

MAX_PAGE = 100

# Errors for a value that is missing or of the wrong type. They are translated when they are rendered. They are tuples,
# since marshmallow would append to a list, which all requests share.
MISSING: Any = {"required": (_l("This is missing."),), "null": (_l("This must not be null."),)}
INVALID_TEXT: Any = MISSING | dict.fromkeys(("invalid", "invalid_utf8"), (_l("This must be text."),))
INVALID_NUMBER: Any = MISSING | dict.fromkeys(("invalid", "too_large"), (_l("This must be a whole number."),))
INVALID_LIST: Any = MISSING | {"invalid": (_l("This must be a list."),)}
# Errors of validators, which fill in the numbers.
OUT_OF_RANGE: Any = _l("This must be from {min} to {max}.")
WRONG_COUNT: Any = _l("This must have {min} to {max} items.")
WRONG_LENGTH: Any = _l("This must have {min} to {max} characters.")
TOO_LONG: Any = _l("This must have at most {max} characters.")


# The pattern of a text that is not blank. Unlike validators.is_blank(), it does not treat Unicode marks and format
# characters as blank.
NOT_BLANK = r"[^\s\u0000-\u001f\u007f-\u009f\u00ad]"


class StorableText(fields.String):
    """Text to be stored: rejects characters that no database stores, and converts each line end to one character."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any) -> Any:
        string = super()._deserialize(value, attr, data, **options)
        if not is_storable(string):
            raise marshmallow.ValidationError(_("This has characters that cannot be kept (NUL or half a character)."))
        return normalize_newlines(string)


class Moment(fields.String):
    """A time, dumped in ISO 8601; text is in that form already."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **options: Any) -> str | None:
        return value if isinstance(value, str) else iso(value)


class ComputedFlag(fields.Boolean):
    """A boolean that `compute` returns for the object that is dumped."""

    def __init__(self, compute: Callable[[Any], bool], **options: Any) -> None:
        super().__init__(**options)
        self._compute = compute

    def get_value(self, obj: Any, *args: Any, **options: Any) -> bool:
        """Return the value for `obj`."""
        return self._compute(obj)


def text(description: str, **options: Any) -> fields.String:
    return fields.String(metadata={"description": description}, error_messages=INVALID_TEXT, **options)


def stored_text(description: str, pattern: str | None = None, form: str | None = None, **options: Any) -> fields.String:
    """Return a field for text to be stored; its `pattern` and `form` (a JSON Schema format) are only documented."""
    metadata = {"description": description} | ({"pattern": pattern} if pattern else {})
    return StorableText(metadata=metadata | ({"format": form} if form else {}), error_messages=INVALID_TEXT, **options)


def integer(description: str, **options: Any) -> fields.Integer:
    return fields.Integer(metadata={"description": description}, error_messages=INVALID_NUMBER, **options)


def ids(description: str, **options: Any) -> fields.List[int]:
    """Return a field for a list of row ids, at most as many as a page has."""
    number = fields.Integer(validate=validate.Range(1, MAX_ID, error=OUT_OF_RANGE), error_messages=INVALID_NUMBER)
    length = validate.Length(1, MAX_PAGE, error=WRONG_COUNT)
    metadata = {"description": description}
    return fields.List(number, validate=length, metadata=metadata, error_messages=INVALID_LIST, **options)


def flag(description: str, compute: Callable[[Any], bool] | None = None, **options: Any) -> fields.Boolean:
    options["metadata"] = {"description": description}
    return ComputedFlag(compute, **options) if compute else fields.Boolean(**options)


def choice(choices: Sequence[str], description: str, **options: Any) -> fields.String:
    validator = validate.OneOf(choices, error=_l("This must be one of those that the documentation lists."))
    return text(description, validate=validator, **options)


def moment(description: str, **options: Any) -> fields.String:
    """Return a field for a time."""
    metadata = {"description": f"{description} ISO 8601 in UTC, ending in Z.", "format": "date-time"}
    return Moment(metadata=metadata, **options)
