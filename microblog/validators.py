"""Validation of input: text that both databases can store, ids in addresses, mail addresses."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, TypeVar

from email_validator import EmailNotValidError, validate_email
from flask_babel import gettext as _
from wtforms import Field, Form
from wtforms.validators import StopValidation

from microblog.extensions import db

# PostgreSQL keeps no NUL, and UTF-8 has no halves of a surrogate pair.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Space, controls and formats (such as a zero-width space), and marks, which sit on something that can be seen. Not what
# is unassigned, as new emoji are to this Python.
_UNSEEN = {"Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Me"}
_FILLERS = "\u2800\u115f\u1160\u3164\uffa0"  # a Braille pattern without dots, Hangul fillers


def is_storable(text: str) -> bool:
    """Return whether every character of `text` can be stored and sent."""
    return _UNSTORABLE.search(text) is None


def is_blank(text: str) -> bool:
    """Return whether nothing of `text` can be seen: it is empty, or all of it is white space, controls or fillers."""
    return all(unicodedata.category(one) in _UNSEEN or one in _FILLERS for one in text)


def replace_unstorable(text: str) -> str:
    """`text` with a replacement character for each one that cannot be stored or sent."""
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def normalize_newlines(text: Any) -> str:
    """`text` as its writer sees it: what a browser sends as CR LF is one line end, and one character.

    Raises ValueError, with a sentence for the reader, for a file: a form can be sent one in the place of text.
    """
    if not isinstance(text, str):
        raise ValueError(_("This must be text, not a file."))
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Storable:
    """A form validator: refuses text that cannot be stored.

    What is shown again in the form has a replacement character in each such place, since the page could not
    be sent otherwise. A file that was sent in the place of text is refused likewise.
    """

    def __call__(self, form: Form, field: Field) -> None:
        if field.data is None:
            return
        if not isinstance(field.data, str):
            field.data = ""
            raise StopValidation("" if field.process_errors else _("This must be text, not a file."))
        if is_storable(field.data):
            return
        field.data = replace_unstorable(field.data)
        raise StopValidation(_("This has characters that cannot be kept (NUL or half a character). Remove them."))


T = TypeVar("T")

MAX_ID = 2**31 - 1  # what PostgreSQL's integer holds
ID_IN_ADDRESS = f"int(max={MAX_ID})"  # the converter of a route: anything else is not found


def get_by_id(model: type[T], identity: int) -> T | None:
    """The row of `model` with the number `identity`, or None.

    None also for a number that no row can have: PostgreSQL would refuse one that is too large, and SQLite one that
    is larger still.
    """
    return db.session.get(model, identity) if 0 < identity <= MAX_ID else None


def normalize_email(address: str) -> str:
    """The normal form of `address`. Raises ValueError if it is none.

    Without a look into the DNS: whether mail arrives, only a mail can tell. No mailbox names beyond ASCII, since many
    mail servers refuse those.
    """
    try:
        return validate_email(address, check_deliverability=False, allow_smtputf8=False).normalized
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None


def comparable_email(text: str) -> str:
    """`text` as all spellings of one address have it in common; what is no address is only put in lower case."""
    try:
        return normalize_email(text).lower()
    except ValueError:
        return text.lower()
