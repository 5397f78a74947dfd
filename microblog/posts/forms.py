"""Form for writing a post."""

from __future__ import annotations

from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import Field, TextAreaField
from wtforms.validators import ValidationError

from microblog.posts.models import MAX_POST
from microblog.validators import Storable, is_blank, normalize_newlines


class PostForm(FlaskForm):
    """Form for writing a post."""

    post = TextAreaField(
        _l("Say something"),
        [Storable()],
        filters=[lambda text: normalize_newlines(text or "")],
        render_kw={"rows": 3, "autocomplete": "off", "dir": "auto"},
    )

    @property
    def body(self) -> str:
        """The text to store, without surrounding white space."""
        text: str = self.post.data
        return text.strip()

    def validate_post(self, field: Field) -> None:
        """Refuse an empty post and one that is too long."""
        length = len(self.body)
        if is_blank(self.body):
            raise ValidationError(_("A post needs at least one character that is not a space."))
        if length > MAX_POST:
            raise ValidationError(
                _(
                    "A post has at most %(limit)d characters; this one has %(length)d.",
                    limit=MAX_POST,
                    length=length,
                )
            )
