"""Modules that the fork server of programs.py imports once for all programs. None may start a thread on import."""

from __future__ import annotations

import sqlalchemy.dialects.postgresql.psycopg
import sqlalchemy.dialects.sqlite  # noqa: F401

from tests.support.programs import import_all

import_all("microblog")
