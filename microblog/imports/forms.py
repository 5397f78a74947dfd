"""The form to upload a file of posts."""

from __future__ import annotations

import codecs

from flask_babel import gettext as _
from flask_babel import lazy_gettext as _l
from flask_wtf import FlaskForm
from flask_wtf.file import FileField, FileRequired
from wtforms import Field
from wtforms.validators import ValidationError


class ImportForm(FlaskForm):
    """A file of posts."""

    file = FileField(_l("File"), [FileRequired(_l("Choose a file first."))], render_kw={"accept": ".json"})

    def validate_file(self, field: Field) -> None:
        """Refuse what begins like no JSON object, such as the packed archive that the file is in."""
        beginning = field.data.stream.read(1024).removeprefix(codecs.BOM_UTF8)
        field.data.stream.seek(0)
        if not beginning.lstrip().startswith(b"{"):
            raise ValidationError(
                _("This is no JSON file. If it is a packed archive, unpack it and choose posts.json or outbox.json.")
            )
