"""Validation of input: text that both databases can store, ids in URLs, mail addresses, forms sent by GET."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, TypeVar

from email_validator import EmailNotValidError, validate_email
from flask_babel import gettext as _
from flask_wtf import FlaskForm
from wtforms import Field, Form
from wtforms.validators import StopValidation

from microblog.extensions import db

T = TypeVar("T")

# PostgreSQL cannot store NUL, and UTF-8 cannot encode lone surrogates.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Spaces, control and format characters (such as a zero-width space), and combining marks, which are invisible alone.
# Unassigned characters count as visible, since new emoji are unassigned in this version of Python.
_INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Me"}
_FILLERS = "\u2800\u115f\u1160\u3164\uffa0"  # a Braille pattern without dots, Hangul fillers

MAX_ID = 2**31 - 1  # the maximum of PostgreSQL's integer
ID_CONVERTER = f"int(max={MAX_ID})"  # URL converter; other values are a 404


def is_storable(text: str) -> bool:
    """Return whether every character of `text` can be stored and sent."""
    return _UNSTORABLE.search(text) is None


def is_blank(text: str) -> bool:
    """Return whether `text` has no visible character: it is empty, or has only white space, controls or fillers."""
    return all(unicodedata.category(one) in _INVISIBLE or one in _FILLERS for one in text)


def replace_unstorable(text: str) -> str:
    """Return `text` with a replacement character for each one that cannot be stored or sent."""
    return _UNSTORABLE.sub(_REPLACEMENT, text)


def normalize_newlines(text: Any) -> str:
    """Return `text` with LF for each line end, since browsers send CR LF, which would count as two characters.

    Raises ValueError, with a sentence for the user, if a file was sent instead of text.
    """
    if not isinstance(text, str):
        raise ValueError(_("This must be text, not a file."))
    return text.replace("\r\n", "\n").replace("\r", "\n")


class QueryForm(FlaskForm):
    """Base of forms sent by GET. They change nothing and need no CSRF token, so that a URL can be saved and shared."""

    class Meta:
        csrf = False


class Storable:
    """A form validator that rejects text that cannot be stored, and files sent instead of text.

    The form is shown again with a replacement character for each invalid one, since the page could not be encoded
    otherwise.
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


def get_by_id(model: type[T], identity: int) -> T | None:
    """Return the row of `model` with the id `identity`, or None.

    None also for a number out of the column's range, which PostgreSQL (and SQLite above 64 bits) would reject.
    """
    return db.session.get(model, identity) if 0 < identity <= MAX_ID else None


def normalize_email(address: str) -> str:
    """Return the normalized form of `address`. Raises ValueError if it is not a mail address.

    The domain is not looked up in the DNS, since only a mail can show that mail arrives. Non-ASCII mailbox names are
    rejected, since many mail servers refuse them.
    """
    try:
        return validate_email(address, check_deliverability=False, allow_smtputf8=False).normalized
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None


def comparable_email(text: str) -> str:
    """Return `text` in a form that is equal for all spellings of an address; other text is only lower-cased."""
    try:
        return normalize_email(text).lower()
    except ValueError:
        return text.lower()
