"""The API against its own OpenAPI document, by schemathesis: right and wrong requests to each operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
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


# With what a request may be refused that is right by the document: by what it cannot say. A key of a page is any text,
# and hardly any is one; the one whom a message is for may not be there, a name or an address may be taken; of what
# is sought there may be no word; and a file may have no posts.
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


# Without a look through our source for values to try, which takes longer than a short run itself; and the credentials
# are those that are given, so that most requests get past the door.
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
    """All operations that the document of `app` has, as schemathesis knows them."""
    config = SchemathesisConfig.from_dict(SETTINGS)
    for result in schemathesis.openapi.from_wsgi("/api/openapi.json", app, config=config).get_all_operations():
        yield result.ok()


def hold_to_its_word(
    operation: Any, authorization: str | None, known: dict[str, Any], examples: int, chosen_seed: int
) -> None:
    """Send `examples` right and as many wrong requests; raises what schemathesis finds wrong with an answer.

    `authorization` is the header of that name, if there is to be one. Half of the right requests have in their address
    what is `known` to exist, by the names of the arguments.
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
    """Whether a request can be wrong by its document: any text will do in an address.

    Without this, looking in vain for wrong requests to such operations would take most of the time.
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
