"""Form for uploading a file of posts."""

from __future__ import annotations

from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from flask_wtf.file import FileField, FileRequired


class ImportForm(FlaskForm):
    """Upload of a file of posts."""

    file = FileField(_l("File"), [FileRequired(_l("Choose a file first."))], render_kw={"accept": ".json"})
