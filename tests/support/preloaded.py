"""What the programs' server imports, so that they need not: see programs.py. Nothing here may start a thread."""

from __future__ import annotations

import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.sqlite  # noqa: F401

from tests.support.programs import import_all

import_all("microblog")
