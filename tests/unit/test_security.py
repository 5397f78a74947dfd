"""Security of every response: headers, redirect targets and limits of forms."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from microblog.accounts.models import User
from microblog.security import _check_escaped, local_path, referring_path
from tests.support.clients import UnreadBody

# The results do not depend on the kind of database, so one kind is enough.
sqlite_only = pytest.mark.parametrize("database", ["sqlite"])


@pytest.mark.parametrize(
    "target",
    ["/", "/explore", "/user/susan?before=2026-11-21T09:30:00.000000Z_42", "/search?q=a%20b", "/ünï"],
)
def test_local_path_accepts_path_of_this_site(target: str) -> None:
    assert local_path(target) == target


@pytest.mark.parametrize(
    "target",
    [
        None,
        "",
        "explore",
        "https://elsewhere.example/",
        "//elsewhere.example/",
        "///elsewhere.example/",
        "////elsewhere.example/",
        "/\\elsewhere.example/",
        "\\\\elsewhere.example/",
        "/\t/elsewhere.example/",
        "/\n/elsewhere.example/",
        "\t//elsewhere.example/",
        " //elsewhere.example/",
        "/\x00",
        "/\ud800",
        "javascript:alert(1)",
        "//[",
        "//user@elsewhere.example",
    ],
)
def test_local_path_refuses_other_sites(target: str | None) -> None:
    assert local_path(target) is None


@sqlite_only
def test_every_response_has_security_headers(client: FlaskClient) -> None:
    for path in ("/auth/login", "/nothing-here", "/static/site.css"):
        headers = client.get(path).headers

        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert "camera=()" in headers["Permissions-Policy"]


@sqlite_only
def test_hsts_is_sent_over_https_only(client: FlaskClient) -> None:
    plain = client.get("/auth/login", base_url="http://localhost")
    secure = client.get("/auth/login", base_url="https://localhost")

    assert "Strict-Transport-Security" not in plain.headers
    assert secure.headers["Strict-Transport-Security"].startswith("max-age=")


@sqlite_only
def test_pages_of_signed_in_user_are_not_cached(
    client: FlaskClient, signed_in: Callable[..., FlaskClient], make_user: Callable[..., User]
) -> None:
    assert "no-store" not in client.get("/auth/login").headers.get("Cache-Control", "")

    browser = signed_in(make_user())

    assert browser.get("/").headers["Cache-Control"] == "no-store"
    assert browser.get("/nothing-here").headers["Cache-Control"] == "no-store"
    assert "no-store" not in browser.get("/static/site.css").headers["Cache-Control"]


@sqlite_only
def test_form_with_invalid_utf8_is_refused(
    signed_in: Callable[..., FlaskClient], make_user: Callable[..., User]
) -> None:
    browser = signed_in(make_user())

    for body in (b"post=%ED%A0%80", b"post=\xed\xa0\x80", b"post=%FF"):
        response = browser.post("/", data=body, content_type="application/x-www-form-urlencoded")

        assert response.status_code == 400
        assert "not valid UTF-8" in response.text
    assert "post-body" not in browser.get("/").text


@sqlite_only
def test_pages_have_no_inline_or_external_content(
    client: FlaskClient, signed_in: Callable[..., FlaskClient], make_user: Callable[..., User]
) -> None:
    browser = signed_in(make_user())

    for page in (
        client.get("/auth/login"),
        client.get("/gone"),
        browser.get("/"),
        browser.get("/user/susan"),
    ):
        assert "style=" not in page.text
        assert "<style" not in page.text
        assert " onclick=" not in page.text
        assert "<script>" not in page.text
        assert "://" not in page.text


@sqlite_only
@pytest.mark.parametrize(
    ("referrer", "path"),
    [
        ("http://localhost/user/susan?before=x", "/user/susan?before=x"),
        ("http://elsewhere.example/user/susan", None),
        ("http://localhost//elsewhere.example/", None),
        ("http://[", None),
        (None, None),
    ],
)
def test_referring_path_is_limited_to_this_site(app: Flask, referrer: str | None, path: str | None) -> None:
    with app.test_request_context("/tasks/1/cancel", headers={"Referer": referrer} if referrer else {}):
        assert referring_path() == path


@sqlite_only
@pytest.mark.parametrize("mimetype", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
def test_lone_surrogate_is_refused_in_each_form_encoding(client: FlaskClient, mimetype: str) -> None:
    half = b"ab\xed\xa0\x80cd"
    parts = b'--b\r\nContent-Disposition: form-data; name="username"\r\n\r\n' + half + b"\r\n--b--\r\n"

    response = client.post(
        "/auth/login", data=parts if "multipart" in mimetype else b"username=" + half, content_type=mimetype
    )

    assert response.status_code == 400
    assert "half a character" in response.text


@sqlite_only
@pytest.mark.parametrize("body", [b'{"username": "susan"}', b"[" * 2000, b"{"])
def test_form_sent_as_json_is_refused(make_app: Callable[..., Flask], body: bytes) -> None:
    client = make_app(TESTING=False, PROPAGATE_EXCEPTIONS=False).test_client()

    refused = client.post("/auth/login", data=body, content_type="application/json")

    assert refused.status_code == 400
    assert "Nothing was changed." in refused.text


@pytest.mark.parametrize("missing", range(8))
@pytest.mark.parametrize(("text", "is_text"), [("%F0%9F%90%B3", True), ("%F0%9F%90", False), ("%%F0%9F%90%B3%", True)])
def test_form_check_handles_characters_across_slices(missing: int, text: str, is_text: bool) -> None:
    form = (b"x" * (4096 - missing) + text.encode()) * 3

    with contextlib.nullcontext() if is_text else pytest.raises(UnicodeDecodeError):
        _check_escaped(form)


@pytest.mark.parametrize("form", [b"%" * 400_000, b"%25" * 133_000, b"\xc3\xa4%41" * 80_000])
@pytest.mark.exhaustive
def test_form_check_uses_little_memory(form: bytes) -> None:
    tracemalloc.start()
    try:
        _check_escaped(form)
        _current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2_000_000


@sqlite_only
@pytest.mark.parametrize("path", ["/auth/login", "/import", "/api/imports"])
def test_oversized_form_is_refused_unread(
    app: Flask, signed_in: Callable[..., FlaskClient], make_user: Callable[..., User], path: str
) -> None:
    browser = signed_in(make_user())
    body = UnreadBody(b"%" * (app.config["MAX_FORM_MEMORY_SIZE"] + 1))

    refused = browser.post(
        path, input_stream=body, content_length=len(body.getvalue()), content_type="application/x-www-form-urlencoded"
    )

    assert refused.status_code == 413
    assert "What was sent is larger than this site takes." in refused.text
    assert refused.mimetype == ("application/problem+json" if path.startswith("/api/") else "text/html")


@sqlite_only
@pytest.mark.exhaustive
def test_largest_anonymous_form_uses_little_memory(app: Flask, client: FlaskClient) -> None:
    body = b"%" * app.config["MAX_FORM_MEMORY_SIZE"]
    client.get("/auth/login")  # load what every request needs before measuring
    tracemalloc.start()
    try:
        response = client.post("/auth/login", data=body, content_type="application/x-www-form-urlencoded")
        _current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert response.status_code == 422
    assert peak < 60_000_000


@sqlite_only
def test_upload_with_many_other_fields_is_refused(
    app: Flask, signed_in: Callable[..., FlaskClient], make_user: Callable[..., User]
) -> None:
    fields = {f"field{number}": "x" * 1000 for number in range(20)}

    refused = signed_in(make_user()).post("/import", data=fields | {"file": (io.BytesIO(b"{}"), "posts.json")})

    assert refused.status_code == 413
    assert "<h1>Too large</h1>" in refused.text
