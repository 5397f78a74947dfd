"""The form to write a message."""

from __future__ import annotations

from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import Field, TextAreaField
from wtforms.validators import ValidationError

from microblog.messages.models import MAX_LENGTH
from microblog.text import Storable, with_unix_line_ends


class MessageForm(FlaskForm):
    """What do you want to tell somebody?"""

    message = TextAreaField(
        _l("Message"),
        [Storable()],
        filters=[lambda text: with_unix_line_ends(text or "")],
        description=_l("Up to %(limit)d characters, for nobody else to read.", limit=MAX_LENGTH),
        render_kw={"rows": 4, "autocomplete": "off"},
    )

    @property
    def body(self) -> str:
        """What is to be sent: the text without the white space around it."""
        text: str = self.message.data
        return text.strip()

    def validate_message(self, field: Field) -> None:
        """Refuse a message that says nothing, or too much."""
        length = len(self.body)
        if length == 0:
            raise ValidationError(_("A message needs at least one character that is not a space."))
        if length > MAX_LENGTH:
            raise ValidationError(
                _(
                    "A message has at most %(limit)d characters; this one has %(length)d.",
                    limit=MAX_LENGTH,
                    length=length,
                )
            )
