"""Strategies of Hypothesis for texts and for the values that Celery's serializer knows."""

from __future__ import annotations

from datetime import UTC

from hypothesis import strategies as st

HUGE = 10**400
TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=30) | st.sampled_from(
    ["\0", "\ud800", "one\udfff", "x" * 100_000]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(HUGE), st.floats(), TEXTS, st.datetimes(timezones=st.just(UTC)),
    st.dates(), st.decimals(allow_nan=False), st.uuids(), st.binary(max_size=20),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)
