"""A pytest plugin that records whether each test passed, failed by an assertion, or raised another error.

Another error shows that something is wrong, but not that the test checks for it, so only assertions count.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

PASSED, ASSERTED, ERRORED, SKIPPED = "passed", "asserted", "errored", "skipped"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, required=True, help="the JSON file to which the outcomes are written")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_OUTCOMES] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" or (call.when == "setup" and not report.passed):
        item.config.stash[_OUTCOMES][item.nodeid] = [_outcome(call, report), _message(call)]
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.getoption("outcomes").write_text(json.dumps(session.config.stash[_OUTCOMES]))


_OUTCOMES = pytest.StashKey[dict[str, list[str]]]()


def _outcome(call: pytest.CallInfo[None], report: pytest.TestReport) -> str:
    if call.excinfo is None:
        return PASSED
    if report.skipped:
        return SKIPPED
    error = call.excinfo.value
    # The message of pytest.raises(); any other pytest.fail() comes from a fixture or the time limit.
    missed = isinstance(error, pytest.fail.Exception) and str(error).startswith("DID NOT RAISE")
    return ASSERTED if call.when == "call" and (missed or isinstance(error, AssertionError)) else ERRORED


def _message(call: pytest.CallInfo[None]) -> str:
    return call.excinfo.exconly(tryshort=True).partition("\n")[0] if call.excinfo else ""
