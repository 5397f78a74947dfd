"""``flask users``: list users, promote and demote operators."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from microblog.accounts.models import User
from microblog.extensions import db
from tests.support.console import Run, commands


@pytest.fixture
def run(app: Flask) -> Run:
    return commands(app, "users")


def is_operator(username: str) -> bool:
    db.session.rollback()
    user = User.with_username(username)
    assert user is not None
    return user.is_operator


def test_new_user_is_no_operator(make_user: Callable[..., User]) -> None:
    assert make_user("susan").is_operator is False


@pytest.mark.both_databases
def test_promote_and_demote_ignore_case(run: Run, make_user: Callable[..., User]) -> None:
    make_user("susan")

    promoted = run("promote", "Susan")
    assert (promoted.exit_code, promoted.stdout) == (0, "susan: an operator now.\n")
    assert is_operator("susan")

    demoted = run("demote", "susan")
    assert (demoted.exit_code, demoted.stdout) == (0, "susan: no longer an operator.\n")
    assert not is_operator("susan")


def test_unchanged_role_exits_with_1(run: Run, make_user: Callable[..., User]) -> None:
    make_user("susan")

    demoted = run("demote", "susan")
    assert (demoted.exit_code, demoted.stderr) == (1, "susan: not an operator.\n")
    run("promote", "susan")
    promoted = run("promote", "susan")
    assert (promoted.exit_code, promoted.stderr) == (1, "susan: an operator already.\n")


@pytest.mark.both_databases
@pytest.mark.parametrize("name", ["nobody", "no such name!", "-", "x\x00"])
def test_unknown_user_is_refused(run: Run, name: str) -> None:
    for command in ("promote", "demote"):
        result = run(command, name)
        assert result.exit_code == 2
        assert result.stderr == f"{name}: no such user.\n"


@pytest.mark.both_databases
def test_list_of_users_and_of_operators(run: Run, make_user: Callable[..., User]) -> None:
    for name in ("susan", "ben", "Ada"):
        make_user(name)
    run("promote", "susan")

    lines = run("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "Ada", "ben", "susan"]
    assert [line.endswith("operator") for line in lines[1:]] == [False, False, True]
    assert [user["username"] for user in json.loads(run("list", "--operators", "--json").stdout)] == ["susan"]
    assert len(json.loads(run("list", "--limit", "2", "--json").stdout)) == 2


def test_empty_list_prints_message(run: Run) -> None:
    assert run("list", "--operators").stderr == "There are no operators.\n"
    assert run("list", "--json").stdout.strip() == "[]"


def test_promote_json_output(run: Run, make_user: Callable[..., User]) -> None:
    make_user("susan")

    outcome = json.loads(run("promote", "susan", "--json").stdout)

    assert outcome["done"] is True
    assert (outcome["username"], outcome["is_operator"]) == ("susan", True)
    assert json.loads(run("promote", "nobody", "--json").stdout) is None


def test_database_unavailable_exits_with_3(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    app = make_app(SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path}/no/such/folder/x.db")

    result = app.test_cli_runner().invoke(args=["users", "list"])

    assert result.exit_code == 3
    assert result.stderr.startswith("The database is unavailable: ")
