"""Form for writing a message."""

from __future__ import annotations

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import Field, TextAreaField
from wtforms.validators import ValidationError

from microblog.messages.models import MAX_MESSAGE
from microblog.messages.services import normalize_body
from microblog.validators import Storable, normalize_newlines


class MessageForm(FlaskForm):
    """Form for writing a private message."""

    message = TextAreaField(
        _l("Message"),
        [Storable()],
        filters=[lambda text: normalize_newlines(text or "")],
        description=_l("Up to %(limit)d characters, for nobody else to read.", limit=MAX_MESSAGE),
        render_kw={"rows": 4, "autocomplete": "off", "dir": "auto"},
    )

    @property
    def body(self) -> str:
        """The text to send; the form must be valid."""
        return normalize_body(self.message.data)

    def validate_message(self, field: Field) -> None:
        """Refuse an empty message and one that is too long."""
        try:
            normalize_body(field.data)
        except ValueError as error:
            raise ValidationError(str(error)) from error
