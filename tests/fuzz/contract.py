"""The API against its own OpenAPI document, by schemathesis: right and wrong requests to each operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


def operations_of(app: Flask) -> Iterator[Any]:
    """All operations that the document of `app` has, as schemathesis knows them."""
    for result in schemathesis.openapi.from_wsgi("/api/openapi.json", app).get_all_operations():
        yield result.ok()


def hold_to_its_word(operation: Any, authorization: str | None, examples: int, chosen_seed: int) -> None:
    """Send `examples` right and as many wrong requests; raises what schemathesis finds wrong with an answer.

    `authorization` is the header of that name, if there is to be one.
    """
    headers = {"Authorization": authorization} if authorization else {}
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @seed(chosen_seed)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            case.call_and_validate(headers=headers, checks=CHECKS)

        send()
