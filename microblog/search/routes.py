"""The search page."""

from __future__ import annotations

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue
from flask_login import login_required

from microblog.search.find import MAX_CANDIDATES, find
from microblog.search.forms import SearchForm
from microblog.search.query import Query

bp = Blueprint("search", __name__)


@bp.get("/search")
@login_required
def search() -> ResponseReturnValue:
    """Show the posts that match `q`."""
    form = SearchForm(request.args)
    if not form.validate():
        return render_template("search/search.html", form=form), 422
    query = Query.parse(form.q.data)
    found = find(query, request.args.get("before"), request.args.get("after")) if query else None
    return render_template("search/search.html", form=form, found=found, looked_at=MAX_CANDIDATES)
