"""Registration, login, logout and the profile page."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from types import ModuleType

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.security import generate_password_hash

from microblog.accounts import models, services
from microblog.accounts.models import User
from microblog.extensions import db
from tests.conftest import quick_hash
from tests.support import not_none
from tests.support.clients import sign_in
from tests.support.servers import TIMEOUT

NEWCOMER = {
    "username": "newcomer",
    "email": "newcomer@example.com",
    "password": "cat-dog-fish",
    "password2": "cat-dog-fish",
}
WRONG = "The username or the password is wrong."

both_databases = pytest.mark.both_databases


def count_users(app: Flask) -> int:
    with app.app_context():
        return db.session.scalars(sa.select(sa.func.count()).select_from(User)).one()


def test_register_login_and_logout(client: FlaskClient) -> None:
    signed_up = client.post("/auth/register", data=NEWCOMER)
    assert signed_up.headers["Location"] == "/auth/login"

    signed_in = sign_in(client, "newcomer")
    assert signed_in.headers["Location"] == "/"
    assert client.get("/").status_code == 200

    assert client.post("/auth/logout").headers["Location"] == "/auth/login"
    assert client.get("/").headers["Location"] == "/auth/login"


def test_only_password_hash_is_stored(app: Flask, client: FlaskClient) -> None:
    client.post("/auth/register", data=NEWCOMER)

    with app.app_context():
        user = not_none(User.with_username("newcomer"))
        assert NEWCOMER["password"] not in user.password_hash
        assert user.check_password(NEWCOMER["password"])


BAD_SIGN_UPS = [
    ("username", "", "Choose a username."),
    ("username", "ab", "3 to 64 characters"),
    ("username", "a" * 65, "3 to 64 characters"),
    ("username", "two words", "Use letters without accents"),
    ("username", "susänne", "Use letters without accents"),
    ("username", "line\n", "Use letters without accents"),
    ("username", "nul\x00", "characters that cannot be kept"),
    ("email", "", "Enter your email address."),
    ("email", "nobody", "no email address"),
    ("email", "a@b", "no email address"),
    ("email", "nul\x00@example.com", "characters that cannot be kept"),
    ("email", "a" * 243 + "@example.com", "no email address"),
    ("password", "", "Choose a password."),
    ("password", "seven77", "8 to 1024 characters"),
    ("password", "a" * 1025, "8 to 1024 characters"),
    ("password", "nul\x00nul\x00", "characters that cannot be kept"),
    ("password2", "cat-dog-fisch", "The two passwords differ."),
    ("password2", "", "Enter the password a second time."),
]


def test_invalid_registration_is_refused(app: Flask, client: FlaskClient) -> None:
    for field, value, sentence in BAD_SIGN_UPS:
        response = client.post("/auth/register", data=NEWCOMER | {field: value})

        assert response.status_code == 422, (field, value)
        assert sentence in response.text, (field, value)
    assert count_users(app) == 0


@both_databases
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"username": "SuSaN"}, "This username is taken."),
        ({"email": "SUSAN@example.com"}, "account with this"),
    ],
)
def test_registration_refuses_taken_name_in_any_case(
    app: Flask, client: FlaskClient, make_user: Callable[..., User], fields: dict[str, str], sentence: str
) -> None:
    make_user("susan")

    response = client.post("/auth/register", data=NEWCOMER | fields)

    assert response.status_code == 422
    assert sentence in response.text
    assert count_users(app) == 1


@both_databases
@pytest.mark.parametrize("other", [("SUSAN", "other@example.com"), ("other", "Susan@Example.com")])
def test_database_enforces_case_insensitive_uniqueness(
    app: Flask, make_user: Callable[..., User], other: tuple[str, str]
) -> None:
    make_user("susan")

    username, email = other
    insert = sa.insert(User).values(username=username, email=email, password_hash="!")

    with app.app_context(), pytest.raises(sa.exc.IntegrityError):
        db.session.execute(insert)


@both_databases
def test_concurrent_registrations_of_name_have_one_winner(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both requests find the name free before either of them stores it.
    both_checked = threading.Barrier(2)

    def hash_once_both_checked(password: str) -> str:
        if password == NEWCOMER["password"]:
            both_checked.wait(timeout=TIMEOUT)
        return quick_hash(password)

    monkeypatch.setattr(models, "generate_password_hash", hash_once_both_checked)
    answers = []

    def sign_up() -> None:
        answers.append(app.test_client().post("/auth/register", data=NEWCOMER))

    threads = [threading.Thread(target=sign_up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=TIMEOUT)

    winner, loser = sorted(answers, key=lambda answer: answer.status_code)
    assert winner.status_code == 302
    assert loser.status_code == 422
    assert "This username is taken." in loser.text
    assert count_users(app) == 1


@both_databases
def test_login_accepts_username_or_email_in_any_case(app: Flask, make_user: Callable[..., User]) -> None:
    make_user("susan")

    for name in ("susan", "SUSAN", "susan@example.com", "Susan@Example.COM"):
        assert sign_in(app.test_client(), name).status_code == 302, name


@both_databases
@pytest.mark.parametrize(
    "typed", ["susan@exämple.com", "Susan@EXÄMPLE.com", "susan@xn--exmple-cua.com", "susan@ｅxa\u0308mple。com"]
)
def test_login_normalizes_internationalized_address(
    client: FlaskClient, make_user: Callable[..., User], typed: str
) -> None:
    make_user("susan").email = "susan@exämple.com"
    db.session.commit()

    assert sign_in(client, typed).status_code == 302


def test_login_does_not_reveal_unknown_username(client: FlaskClient, make_user: Callable[..., User]) -> None:
    make_user("susan")

    for name, password in (("susan", "wrong"), ("nobody", "cat-dog-fish"), ("a@b.example", "x")):
        response = sign_in(client, name, password)

        assert response.status_code == 401
        assert WRONG in response.text
        assert f'value="{name}"' in response.text
        assert client.get("/").status_code == 302


@pytest.mark.parametrize("module", [models, services])
def test_password_hash_has_werkzeug_default_cost(
    app: Flask, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    user, costs = make_user(), generate_password_hash("").split("$")[0]
    monkeypatch.setattr(module, "generate_password_hash", generate_password_hash)

    if module is models:
        user.set_password("horse-bird-cow")
    else:
        assert services.replace_password(user, "horse-bird-cow")

    assert user.password_hash.startswith(f"{costs}$")
    assert user.check_password("horse-bird-cow")


def test_login_checks_hash_for_unknown_username(
    app: Flask, make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_user("susan")
    checked = []
    monkeypatch.setattr(models, "check_password_hash", lambda stored, given: checked.append(given))

    with app.app_context():
        for name in ("susan", "nobody", "nobody@example.com"):
            assert User.with_credentials(name, "secret") is None

    assert checked == ["secret"] * 3


@both_databases
def test_login_refuses_nul_characters(client: FlaskClient) -> None:
    for name, password in (("a\x00b", "cat-dog-fish"), ("a\x00@b.example", "x"), ("susan", "a\x00b")):
        response = sign_in(client, name, password)

        assert response.status_code == 422
        assert "characters that cannot be kept" in response.text


def test_remember_me_outlives_session_cookie(client: FlaskClient, make_user: Callable[..., User]) -> None:
    make_user("susan")
    sign_in(client, remember_me="y")

    client.delete_cookie("session")

    assert client.get("/").status_code == 200


def test_login_without_remember_me_ends_with_session(client: FlaskClient, make_user: Callable[..., User]) -> None:
    make_user("susan")
    sign_in(client)

    client.delete_cookie("session")

    assert client.get("/").status_code == 302


def test_login_redirects_to_requested_page(client: FlaskClient, make_user: Callable[..., User]) -> None:
    make_user("susan")

    login_url = client.get("/user/susan?x=1").headers["Location"]
    response = sign_in(client, query=login_url.removeprefix("/auth/login"))

    assert response.headers["Location"] == "/user/susan?x=1"


def test_login_never_redirects_to_another_site(app: Flask, make_user: Callable[..., User]) -> None:
    make_user("susan")

    for target in ("https://elsewhere.example", "//elsewhere.example", "/%5Celsewhere.example"):
        signed_in = sign_in(app.test_client(), query=f"?next={target}")
        assert signed_in.headers["Location"] == "/", target


def test_get_request_does_not_log_out(signed_in: Callable[..., FlaskClient], make_user: Callable[..., User]) -> None:
    browser = signed_in(make_user())

    page = browser.get("/auth/logout")

    assert page.status_code == 200
    assert "Sign out?" in page.text
    assert browser.get("/").status_code == 200


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/auth/login", {"username": "susan", "password": "wrong"}), ("/auth/register", {"username": "susan"})],
)
def test_login_and_registration_are_rate_limited(
    make_app: Callable[..., Flask], path: str, fields: dict[str, str]
) -> None:
    strict = make_app(RATELIMIT_ENABLED=True, RATELIMIT_STORAGE_URI="memory://", RATELIMIT_SIGN_IN="3 per hour")
    client = strict.test_client()

    statuses = [client.post(path, data=fields).status_code for _ in range(3)]
    refused = client.post(path, data=fields)

    assert 429 not in statuses
    assert refused.status_code == 429
    assert "tried this too often" in refused.text
    assert 0 < int(refused.headers["Retry-After"]) <= 3600
    assert client.get(path).status_code == 200


@both_databases
def test_profile_is_found_in_any_case(signed_in: Callable[..., FlaskClient], make_user: Callable[..., User]) -> None:
    browser = signed_in(make_user("susan"))

    assert "<h1>susan</h1>" in browser.get("/user/SUSAN").text


@both_databases
def test_unknown_profile_is_404(signed_in: Callable[..., FlaskClient], make_user: Callable[..., User]) -> None:
    browser = signed_in(make_user())

    for name in ("nobody", "%00", "a%00b", "%ED%A0%80", "two%20words", "%F0%9F%98%80"):
        assert browser.get(f"/user/{name}").status_code == 404, name


def test_export_button_is_only_on_own_profile(
    signed_in: Callable[..., FlaskClient], make_user: Callable[..., User]
) -> None:
    browser = signed_in(make_user("susan"))
    make_user("david")

    assert "Export your posts" in browser.get("/user/susan").text
    assert "Export your posts" not in browser.get("/user/david").text
    assert "david@example.com" not in browser.get("/user/david").text


def test_file_in_text_field_is_refused(
    client: FlaskClient, make_user: Callable[..., User], signed_in: Callable[..., FlaskClient]
) -> None:
    browser = signed_in(make_user())
    for visitor, path, field in (
        *((client, "/auth/login", "username"), (client, "/auth/register", "email")),
        *((browser, "/", "post"), (browser, "/account/tokens", "name")),
    ):
        response = visitor.post(path, data={field: (io.BytesIO(b"text"), "file.txt")})

        assert response.status_code == 422
