"""Which text can be kept: in both databases, and in a page that is sent as UTF-8."""

from __future__ import annotations

import re

from flask_babel import gettext as _
from wtforms import Field, Form
from wtforms.validators import StopValidation

# PostgreSQL keeps no NUL, and UTF-8 has no halves of a surrogate pair.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
#: The converter of a row's number in an address: PostgreSQL cannot be asked for a greater one.
ID_IN_ADDRESS = "int(max=2147483647)"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def is_storable(text: str) -> bool:
    """Whether every character of `text` can be stored and sent."""
    return _UNSTORABLE.search(text) is None


def with_unix_line_ends(text: str) -> str:
    """`text` as its writer sees it: what a browser sends as CR LF is one line end, and one character."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Storable:
    """A form validator: refuses text that cannot be stored.

    What is shown again in the form has a replacement character in each such place, since the page could not
    be sent otherwise.
    """

    def __call__(self, form: Form, field: Field) -> None:
        if field.data is None or is_storable(field.data):
            return
        field.data = _UNSTORABLE.sub(_REPLACEMENT, field.data)
        raise StopValidation(_("This has characters that cannot be kept (NUL or half a character). Remove them."))
