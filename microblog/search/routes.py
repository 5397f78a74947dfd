"""The search page."""

from __future__ import annotations

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue
from flask_babel import lazy_gettext as _l
from flask_login import login_required
from wtforms import StringField
from wtforms.validators import Length

from microblog.pagination import requested_page
from microblog.search.find import MAX_CANDIDATES, find
from microblog.search.query import MAX_QUERY, Query
from microblog.validators import QueryForm, Storable

bp = Blueprint("search", __name__)


class SearchForm(QueryForm):
    """The search form."""

    q = StringField(
        _l("Search"),
        [Storable(), Length(max=MAX_QUERY, message=_l("A search has at most %(max)d characters."))],
        filters=[lambda text: (text or "").strip()],
    )


@bp.get("/search")
@login_required
def search() -> ResponseReturnValue:
    """Show the posts that match `q`."""
    form = SearchForm(request.args)
    if not form.validate():
        return render_template("search/search.html", form=form), 422
    query = Query.parse(form.q.data)
    found = find(query, requested_page()) if query else None
    return render_template("search/search.html", form=form, found=found, looked_at=MAX_CANDIDATES)
