"""Signing up, in and out, and the profile."""

from __future__ import annotations

import io
import threading

import pytest
import sqlalchemy as sa
from werkzeug.security import generate_password_hash

from microblog.accounts import models, services
from microblog.accounts.models import User
from microblog.extensions import db
from tests.support.servers import PATIENCE

NEWCOMER = {
    "username": "newcomer",
    "email": "newcomer@example.com",
    "password": "cat-dog-fish",
    "password2": "cat-dog-fish",
}
WRONG = "The username or the password is wrong."

both_databases = pytest.mark.both_databases


def count_users(app) -> int:
    with app.app_context():
        return db.session.scalar(sa.select(sa.func.count()).select_from(User))


def sign_in(client, username="susan", password="cat-dog-fish", onward="", **fields):
    return client.post("/auth/login" + onward, data={"username": username, "password": password, **fields})


def test_somebody_signs_up_signs_in_and_signs_out(client):
    signed_up = client.post("/auth/register", data=NEWCOMER)
    assert signed_up.headers["Location"] == "/auth/login"

    signed_in = sign_in(client, "newcomer")
    assert signed_in.headers["Location"] == "/"
    assert client.get("/").status_code == 200

    assert client.post("/auth/logout").headers["Location"] == "/auth/login"
    assert client.get("/").headers["Location"] == "/auth/login"


def test_the_password_is_not_kept(app, client):
    client.post("/auth/register", data=NEWCOMER)

    with app.app_context():
        user = User.with_username("newcomer")
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


def test_a_bad_sign_up_is_refused_with_a_sentence(app, client):
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
def test_a_name_is_taken_in_whatever_case(app, client, make_user, fields, sentence):
    make_user("susan")

    response = client.post("/auth/register", data=NEWCOMER | fields)

    assert response.status_code == 422
    assert sentence in response.text
    assert count_users(app) == 1


@both_databases
@pytest.mark.parametrize("other", [("SUSAN", "other@example.com"), ("other", "Susan@Example.com")])
def test_the_database_itself_holds_a_name_unique_in_whatever_case(app, make_user, other):
    make_user("susan")

    username, email = other
    insert = sa.insert(User).values(username=username, email=email, password_hash="!")

    with app.app_context(), pytest.raises(sa.exc.IntegrityError):
        db.session.execute(insert)


@both_databases
def test_of_two_who_take_a_name_in_the_same_moment_one_is_told_so(app, client, monkeypatch):
    # Both forms have looked, and found the name free, before either is kept.
    both_looked = threading.Barrier(2)
    hash_password = models.generate_password_hash

    def hash_when_both_looked(password: str) -> str:
        if password == NEWCOMER["password"]:
            both_looked.wait(timeout=PATIENCE)
        return hash_password(password)

    monkeypatch.setattr(models, "generate_password_hash", hash_when_both_looked)
    answers = []

    def sign_up() -> None:
        answers.append(app.test_client().post("/auth/register", data=NEWCOMER))

    threads = [threading.Thread(target=sign_up) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE)

    winner, loser = sorted(answers, key=lambda answer: answer.status_code)
    assert winner.status_code == 302
    assert loser.status_code == 422
    assert "This username is taken." in loser.text
    assert count_users(app) == 1


@both_databases
def test_signing_in_takes_the_username_or_the_email_in_whatever_case(app, make_user):
    make_user("susan")

    for name in ("susan", "SUSAN", "susan@example.com", "Susan@Example.COM"):
        assert sign_in(app.test_client(), name).status_code == 302, name


@both_databases
@pytest.mark.parametrize(
    "typed", ["susan@exämple.com", "Susan@EXÄMPLE.com", "susan@xn--exmple-cua.com", "susan@ｅxa\u0308mple。com"]
)
def test_an_address_is_the_same_however_it_is_typed(client, make_user, typed):
    make_user("susan").email = "susan@exämple.com"
    db.session.commit()

    assert sign_in(client, typed).status_code == 302


def test_a_wrong_name_and_a_wrong_password_sound_the_same(client, make_user):
    make_user("susan")

    for name, password in (("susan", "wrong"), ("nobody", "cat-dog-fish"), ("a@b.example", "x")):
        response = sign_in(client, name, password)

        assert response.status_code == 401
        assert WRONG in response.text
        assert f'value="{name}"' in response.text
        assert client.get("/").status_code == 302


@pytest.mark.parametrize("module", [models, services])
def test_password_hash_costs_what_werkzeug_recommends(app, make_user, monkeypatch, module):
    user, costs = make_user(), generate_password_hash("").split("$")[0]
    monkeypatch.setattr(module, "generate_password_hash", generate_password_hash)

    if module is models:
        user.set_password("horse-bird-cow")
    else:
        assert services.replace_password(user, "horse-bird-cow")

    assert user.password_hash.startswith(f"{costs}$")
    assert user.check_password("horse-bird-cow")


def test_a_wrong_name_costs_a_password_check_too(app, make_user, monkeypatch):
    make_user("susan")
    checked = []
    monkeypatch.setattr(models, "check_password_hash", lambda kept, given: checked.append(given))

    with app.app_context():
        for name in ("susan", "nobody", "nobody@example.com"):
            assert User.with_credentials(name, "secret") is None

    assert checked == ["secret"] * 3


@both_databases
def test_a_nul_at_sign_in_is_refused_with_a_sentence(client):
    for name, password in (("a\x00b", "cat-dog-fish"), ("a\x00@b.example", "x"), ("susan", "a\x00b")):
        response = sign_in(client, name, password)

        assert response.status_code == 422
        assert "characters that cannot be kept" in response.text


def test_who_is_remembered_is_still_signed_in_when_the_session_is_gone(client, make_user):
    make_user("susan")
    sign_in(client, remember_me="y")

    client.delete_cookie("session")

    assert client.get("/").status_code == 200


def test_who_is_not_remembered_is_not(client, make_user):
    make_user("susan")
    sign_in(client)

    client.delete_cookie("session")

    assert client.get("/").status_code == 302


def test_signing_in_leads_back_to_the_page_that_asked_for_it(client, make_user):
    make_user("susan")

    asked = client.get("/user/susan?x=1").headers["Location"]
    response = sign_in(client, onward=asked.removeprefix("/auth/login"))

    assert response.headers["Location"] == "/user/susan?x=1"


def test_signing_in_leads_to_no_other_site(app, make_user):
    make_user("susan")

    for target in ("https://elsewhere.example", "//elsewhere.example", "/%5Celsewhere.example"):
        signed_in = sign_in(app.test_client(), onward=f"?next={target}")
        assert signed_in.headers["Location"] == "/", target


def test_following_a_link_signs_nobody_out(signed_in, make_user):
    browser = signed_in(make_user())

    page = browser.get("/auth/logout")

    assert page.status_code == 200
    assert "Sign out?" in page.text
    assert browser.get("/").status_code == 200


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/auth/login", {"username": "susan", "password": "wrong"}), ("/auth/register", {"username": "susan"})],
)
def test_guessing_is_slowed_down(make_app, path, fields):
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
def test_a_profile_is_found_in_whatever_case(signed_in, make_user):
    browser = signed_in(make_user("susan"))

    assert "<h1>susan</h1>" in browser.get("/user/SUSAN").text


@both_databases
def test_the_profile_of_nobody_is_not_found(signed_in, make_user):
    browser = signed_in(make_user())

    for name in ("nobody", "%00", "a%00b", "%ED%A0%80", "two%20words", "%F0%9F%98%80"):
        assert browser.get(f"/user/{name}").status_code == 404, name


def test_the_export_button_is_on_ones_own_profile_only(signed_in, make_user):
    browser = signed_in(make_user("susan"))
    make_user("david")

    assert "Export your posts" in browser.get("/user/susan").text
    assert "Export your posts" not in browser.get("/user/david").text
    assert "david@example.com" not in browser.get("/user/david").text


def test_a_file_in_the_place_of_text_is_refused(client, make_user, signed_in):
    browser = signed_in(make_user())
    for visitor, path, field in (
        *((client, "/auth/login", "username"), (client, "/auth/register", "email")),
        *((browser, "/", "post"), (browser, "/account/tokens", "name")),
    ):
        response = visitor.post(path, data={field: (io.BytesIO(b"text"), "file.txt")})

        assert response.status_code == 422
