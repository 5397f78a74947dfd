"""What a message may say, by whichever page or program it is sent."""

from __future__ import annotations

from flask_babel import gettext as _

from microblog.messages.models import MAX_LENGTH
from microblog.text import is_blank


def body_of(text: str) -> str:
    """What is sent of `text`: all of it without the white space around it.

    Raises ValueError, with a sentence for the writer, if that is nothing or too much.
    """
    body = text.strip()
    if is_blank(body):
        raise ValueError(_("A message needs at least one character that is not a space."))
    if len(body) > MAX_LENGTH:
        raise ValueError(
            _(
                "A message has at most %(limit)d characters; this one has %(length)d.",
                limit=MAX_LENGTH,
                length=len(body),
            )
        )
    return body
