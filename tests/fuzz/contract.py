"""Check of the API against its OpenAPI document with schemathesis: valid and invalid requests to each operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.result import Ok
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
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
    positive_data_acceptance,
    ignored_auth,
]


# The statuses with which a request that conforms to the document may be rejected, for reasons that a schema cannot
# express: the text is not a key of a page, the recipient of a message does not exist, a name or an address is taken,
# a query has no words, or a file has no posts.
_ANSWERED = ["2xx", "401", "403", "404", "409"]
_REFUSED = {
    "GET /api/search": ["400", "422"],
    "POST /api/users": ["422"],
    "PATCH /api/users/{username}": ["422"],
    "POST /api/messages": ["422"],
    "POST /api/imports": ["422"],
}


def _accepted(statuses: list[str]) -> dict[str, Any]:
    return {"positive_data_acceptance": {"expected-statuses": [*_ANSWERED, *statuses]}}


# Searching the source code for constants is disabled, since it takes longer than a short run. Credentials are not
# generated but passed, so that most requests are authenticated.
SETTINGS = {
    "analysis": {"constants": {"enabled": False}},
    "generation": {"with-security-parameters": False},
    "checks": _accepted([]),
    "operations": [
        *({"include-name": name, "checks": _accepted(statuses)} for name, statuses in _REFUSED.items()),
        {"include-method": "GET", "checks": _accepted(["400"])},
    ],
}


def operations_of(app: Flask) -> Iterator[Any]:
    """Yield all operations of the OpenAPI document of `app`, as objects of schemathesis."""
    config = SchemathesisConfig.from_dict(SETTINGS)
    for result in schemathesis.openapi.from_wsgi("/api/openapi.json", app, config=config).get_all_operations():
        assert isinstance(result, Ok)
        yield result.ok()


def check_operation(
    operation: Any, authorization: str | None, known: dict[str, Any], examples: int, chosen_seed: int
) -> None:
    """Send `examples` valid and as many invalid requests. Raises the failures that schemathesis finds in a response.

    `authorization` is the value of that header, or None. `known` maps names of path parameters to existing values,
    which half of the valid requests use.
    """
    headers = {"Authorization": authorization} if authorization else {}
    existing = {each.name: known[each.name] for each in operation.path_parameters if each.name in known}
    strategies = [operation.as_strategy(GenerationMode.POSITIVE)]
    if existing:
        strategies.append(operation.as_strategy(GenerationMode.POSITIVE, path_parameters=existing))
    if _can_be_wrong(operation):
        strategies.append(operation.as_strategy(GenerationMode.NEGATIVE))
    for strategy in strategies:
        _send(strategy, headers, examples, chosen_seed)


def _can_be_wrong(operation: Any) -> bool:
    """Return whether a request to the operation can be invalid; any text is valid as a string in the path.

    Otherwise the search for invalid requests would take most of the time.
    """
    numbers = [each for each in operation.path_parameters if each.definition["schema"]["type"] != "string"]
    return bool(operation.body or operation.query or numbers)


def _send(strategy: Any, headers: dict[str, str], examples: int, chosen_seed: int) -> None:
    @seed(chosen_seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def send(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS)

    send()
