"""Marshmallow fields with translated error messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import marshmallow
from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from marshmallow import fields, validate

from microblog.validators import MAX_ID, is_storable, normalize_newlines

MAX_PAGE = 100

# What is said of a value that is missing or of the wrong kind. Each is worded when it is read; in a tuple, since
# marshmallow would add to a list, which all requests share.
MISSING: Any = {"required": (_l("This is missing."),), "null": (_l("This must not be null."),)}
NO_TEXT: Any = MISSING | dict.fromkeys(("invalid", "invalid_utf8"), (_l("This must be text."),))
NO_NUMBER: Any = MISSING | dict.fromkeys(("invalid", "too_large"), (_l("This must be a whole number."),))
NO_LIST: Any = MISSING | {"invalid": (_l("This must be a list."),)}
# What validators say, which fill in the numbers.
NOT_BETWEEN: Any = _l("This must be from {min} to {max}.")
NOT_SO_MANY: Any = _l("This must have {min} to {max} items.")
NOT_SO_LONG: Any = _l("This must have {min} to {max} characters.")
TOO_LONG: Any = _l("This must have at most {max} characters.")


# The pattern of a text that is not blank (see validators.is_blank()), except for marks and formats of Unicode.
SEEN = r"[^\s\u0000-\u001f\u007f-\u009f\u00ad]"


class Kept(fields.String):
    """Text that is to be kept: without what no database keeps, and with one character for each line end."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **options: Any) -> Any:
        written = super()._deserialize(value, attr, data, **options)
        if not is_storable(written):
            raise marshmallow.ValidationError(_("This has characters that cannot be kept (NUL or half a character)."))
        return normalize_newlines(written)


def text(description: str, **options: Any) -> fields.String:
    return fields.String(metadata={"description": description}, error_messages=NO_TEXT, **options)


def kept(description: str, pattern: str | None = None, form: str | None = None, **options: Any) -> fields.String:
    """Text that is to be kept; for the document, the `pattern` that it has, and the `form`: a format of JSON Schema."""
    metadata = {"description": description} | ({"pattern": pattern} if pattern else {})
    return Kept(metadata=metadata | ({"format": form} if form else {}), error_messages=NO_TEXT, **options)


def integer(description: str, **options: Any) -> fields.Integer:
    return fields.Integer(metadata={"description": description}, error_messages=NO_NUMBER, **options)


def ids(description: str, **options: Any) -> fields.List[int]:
    """Ids of rows, as many as a page has at most."""
    number = fields.Integer(validate=validate.Range(1, MAX_ID, error=NOT_BETWEEN), error_messages=NO_NUMBER)
    several = validate.Length(1, MAX_PAGE, error=NOT_SO_MANY)
    metadata = {"description": description}
    return fields.List(number, validate=several, metadata=metadata, error_messages=NO_LIST, **options)


def flag(description: str, **options: Any) -> fields.Boolean:
    return fields.Boolean(metadata={"description": description}, **options)


def choice(offered: Sequence[str], description: str, **options: Any) -> fields.String:
    one = validate.OneOf(offered, error=_l("This must be one of those that the documentation lists."))
    return text(description, validate=one, **options)


def moment(description: str, **options: Any) -> fields.String:
    """A time that is ISO 8601 text already."""
    metadata = {"description": f"{description} ISO 8601 in UTC, ending in Z.", "format": "date-time"}
    return fields.String(metadata=metadata, **options)
