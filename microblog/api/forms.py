"""The form to make a token."""

from __future__ import annotations

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import StringField
from wtforms.validators import InputRequired, Length

from microblog.api.models import MAX_TOKEN_NAME
from microblog.text import Storable


class TokenForm(FlaskForm):
    """What is it for?"""

    name = StringField(
        _l("Name of a new token"),
        [
            InputRequired(_l("Give it a name, so that you know it again.")),
            Storable(),
            Length(max=MAX_TOKEN_NAME, message=_l("This has at most %(max)d characters.")),
        ],
        description=_l("What it is for, such as “backup script”."),
        render_kw={"autocomplete": "off"},
    )
