"""Type and defaults of the columns of a post that are computed from its body."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.default import DefaultExecutionContext

from microblog.posts import language_detection
from microblog.posts.tokenizer import indexed

_LEXEME = re.compile(r"'([^']*)':([\d,]+)")


class Terms(sa.types.TypeDecorator[str]):
    """Terms separated by spaces, none of which contains a quote.

    A ``tsvector`` on PostgreSQL, text on SQLite.
    """

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(TSVECTOR() if dialect.name == "postgresql" else sa.Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or dialect.name != "postgresql":
            return value
        return " ".join(f"'{term}':{position}" for position, term in enumerate(value.split(), 1))

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or dialect.name != "postgresql":
            return value
        positioned = [
            (int(position), term) for term, positions in _LEXEME.findall(value) for position in positions.split(",")
        ]
        return " ".join(term for _position, term in sorted(positioned))


def language_of_body(context: DefaultExecutionContext) -> str | None:
    """Return the default of the language: the one detected in the body."""
    return language_detection.detect_language(context.get_current_parameters()["body"])  # type: ignore[no-untyped-call]


def terms_of_body(context: DefaultExecutionContext) -> str:
    """Return the default of the terms: those of the body."""
    return indexed(context.get_current_parameters()["body"])  # type: ignore[no-untyped-call]
