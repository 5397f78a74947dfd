"""Random requests: route, user and content. Equal numbers with equal seeds create equal requests."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from flask import Flask
from flask_wtf import FlaskForm
from werkzeug.routing import Rule

from tests.fuzz import values
from tests.fuzz.values import ExistingValues

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND")
QUERY = (
    "before",
    "after",
    "limit",
    "next",
    "q",
    "since",
    "until",
    "token",
    "state",
    "user",
    "task",
    "queue",
    "page",
    "x",
)
_ARGUMENT = re.compile(r"<(?:(\w+)(?:\([^)]*\))?:)?(\w+)>")


@dataclass(frozen=True)
class SignedInUser:
    """A signed-in user who can send a request."""

    cookie: str
    csrf_token: str
    api_token: str
    name: str


@dataclass(frozen=True)
class Sent:
    """A request: the rule of its route, whether CSRF checks are enabled, and the options of the test client."""

    rule: str
    csrf: bool
    options: dict[str, Any]

    def __str__(self) -> str:
        options = {key: value for key, value in self.options.items() if value}
        return f"{options.pop('method')} {options.pop('path')} csrf={self.csrf} " + repr(options)


@dataclass(frozen=True)
class Sender:
    """Creates requests to the routes of `app`."""

    app: Flask
    forms: list[str]
    fields: list[str]

    @classmethod
    def to(cls, app: Flask) -> Sender:
        """Return a sender that knows all fields of the forms and of the JSON of `app`."""
        document = app.test_client().get("/api/openapi.json").get_json()
        schemas = document["components"]["schemas"].values()
        return cls(
            app, sorted(set(_form_fields())), sorted({name for one in schemas for name in one.get("properties", ())})
        )

    def make(self, seed: int, number: int, users: list[SignedInUser], existing: ExistingValues) -> Sent:
        """Return the request `number` of `seed`. Every route is used once in each turn, in random order."""
        rng = random.Random(f"{seed}:{number}")
        rules = self._rules()
        turn, place = divmod(number, len(rules))
        rule = random.Random(f"{seed}, turn {turn}").sample(rules, len(rules))[place]
        allowed = sorted(rule.methods or ()) or ["GET"]
        method = rng.choice(allowed if rng.random() < 0.9 else METHODS)
        user = rng.choice([*users, None])
        csrf = rng.random() < 0.25
        headers = self._headers(rule, rng, user, existing)
        body, content_type = self._body(rule, method, rng, existing, user if csrf and rng.random() < 0.7 else None)
        if content_type:
            headers["Content-Type"] = content_type
        query = [(rng.choice(QUERY), values.text(rng, existing)) for _ in range(rng.choice([0, 0, 1, 2]))]
        options = {"method": method, "path": self._path(rule, rng, existing), "headers": headers, "data": body}
        return Sent(rule.rule, csrf, options | {"query_string": urlencode(query)})

    def _rules(self) -> list[Rule]:
        return sorted(self.app.url_map.iter_rules(), key=lambda rule: (rule.rule, sorted(rule.methods or ())))

    def _path(self, rule: Rule, rng: random.Random, existing: ExistingValues) -> str:
        def fill(match: re.Match[str]) -> str:
            return quote(
                values.argument(match[2], match[1] or "", rng, existing), safe="/" if match[1] == "path" else ""
            )

        return _ARGUMENT.sub(fill, rule.rule)

    def _headers(
        self, rule: Rule, rng: random.Random, user: SignedInUser | None, existing: ExistingValues
    ) -> dict[str, str]:
        headers: dict[str, str] = {}
        if user:
            headers["Cookie"] = user.cookie
            if rule.rule.startswith("/api/") and rng.random() < 0.9:
                headers["Authorization"] = f"Bearer {user.api_token}"
        extra = {
            "Accept-Language": rng.choice(values.LANGUAGES),
            "If-None-Match": rng.choice(["*", '"x"', "x", 'W/"x", "y"', '"']),
            "Referer": rng.choice(["http://localhost/explore", "http://[", "x", "http://evil.example/"]),
            "Range": rng.choice(["bytes=0-1", "bytes=5-", "bytes=-0", "x"]),
            "Last-Event-ID": _header(values.text(rng, existing)),
            "Authorization": rng.choice(
                ["Basic", "Basic !", "Bearer", "Bearer \x01", "Digest x=", "Basic c3VzYW46eA=="]
            ),
            "Cookie": rng.choice(["session=x", "session=.eJx", "remember_token=1|x", ";;;", "session=" + "x" * 3000]),
            "X-Requested-With": "XMLHttpRequest",
            "X-Request-ID": _header(values.text(rng, existing)),
        }
        for name in rng.sample(sorted(extra), rng.choice([0, 0, 1, 2])):
            headers[name] = extra[name]
        return headers

    def _body(
        self, rule: Rule, method: str, rng: random.Random, existing: ExistingValues, signer: SignedInUser | None
    ) -> tuple[bytes, str | None]:
        if method in ("GET", "HEAD", "OPTIONS") and rng.random() < 0.95:
            return b"", None
        kind = rng.random()
        if kind < 0.06:
            types = ["application/json", "application/x-www-form-urlencoded", "multipart/form-data", "text/x; x=é", "x"]
            return rng.choice(values.BYTES), _header(rng.choice(types))
        if rule.rule.startswith("/api/") if kind < 0.95 else kind < 0.97:
            names = rng.sample(self.fields, min(len(self.fields), rng.randrange(5)))
            sent: Any = {name: values.json_value(rng, existing) for name in names}
            return orjson.dumps(sent if rng.random() < 0.95 else values.json_value(rng, existing)), "application/json"
        fields = {name: values.text(rng, existing) for name in self.forms if rng.random() < 0.5}
        if signer:
            fields["csrf_token"] = signer.csrf_token
        if rng.random() < 0.8:
            return urlencode(fields).encode(), "application/x-www-form-urlencoded"
        return _multipart(fields, rng)


def _form_fields() -> Iterator[str]:
    """Yield the names of the fields of all forms; creating the application has imported them."""
    forms: list[type] = [FlaskForm]
    while forms:
        form = forms.pop()
        forms += form.__subclasses__()
        yield from (name for name, value in vars(form).items() if hasattr(value, "field_class"))


def _multipart(fields: dict[str, str], rng: random.Random) -> tuple[bytes, str]:
    written = BytesIO()
    for name, value in fields.items():
        file = f'; filename="{quote(name)}"' if rng.random() < 0.3 else ""
        written.write(f'--fuzz\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode())
        written.write(value.encode() + b"\r\n")
    written.write(b"--fuzz--\r\n" if rng.random() < 0.9 else b"")
    return written.getvalue(), "multipart/form-data; boundary=fuzz"


def _header(text: str) -> str:
    """Return `text` as a header value: Latin-1, without NUL and line ends, which no server accepts."""
    return re.sub(r"[\r\n\0]", "", text).encode().decode("latin-1")
