"""The search form."""

from __future__ import annotations

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from wtforms import StringField
from wtforms.validators import Length

from microblog.validators import Storable

MAX_LENGTH = 140  # Unicode code points: the maximum length of a post


class SearchForm(FlaskForm):
    """The search form. It changes nothing and needs no CSRF token, so that its URL can be saved and shared."""

    class Meta:
        csrf = False

    q = StringField(
        _l("Search"),
        [Storable(), Length(max=MAX_LENGTH, message=_l("A search has at most %(max)d characters."))],
        filters=[lambda text: (text or "").strip()],
    )
