"""Tokens while something else happens to them, or to the account: on both databases, whose locks differ."""

from __future__ import annotations

import sqlalchemy as sa

from microblog.api.models import ApiToken
from microblog.extensions import db
from tests.support.api import assert_problem, caller_for


def test_a_token_that_is_revoked_while_it_is_presented_opens_nothing(app, make_user, monkeypatch):
    susan = caller_for(app, make_user())
    find = ApiToken.find

    def found_and_revoked(token):
        row = find(token)
        with db.engine.begin() as elsewhere:
            elsewhere.execute(sa.delete(ApiToken))
        return row

    monkeypatch.setattr(ApiToken, "find", found_and_revoked)

    assert_problem(susan.get("/api/users/me"), 401)
