"""One random request: to which route, as whom, with what. The same number of the same seed makes the same one."""

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
from tests.fuzz.values import Known

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
class Person:
    """Somebody whom a request can come from."""

    cookie: str
    csrf_token: str
    api_token: str
    name: str


@dataclass(frozen=True)
class Sent:
    """A request as it is sent."""

    rule: str
    csrf: bool
    options: dict[str, Any]

    def __str__(self) -> str:
        told = {key: value for key, value in self.options.items() if value}
        return f"{told.pop('method')} {told.pop('path')} csrf={self.csrf} " + repr(told)


@dataclass(frozen=True)
class Sender:
    """Makes requests to the routes of `app`."""

    app: Flask
    forms: list[str]
    fields: list[str]

    @classmethod
    def to(cls, app: Flask) -> Sender:
        """With all fields of the forms and of the JSON that `app` has."""
        document = app.test_client().get("/api/openapi.json").get_json()
        schemas = document["components"]["schemas"].values()
        return cls(
            app, sorted(set(_form_fields())), sorted({name for one in schemas for name in one.get("properties", ())})
        )

    def make(self, seed: int, number: int, people: list[Person], known: Known) -> Sent:
        """The request `number` of `seed`. Turn after turn each route is asked, in another order."""
        chance = random.Random(f"{seed}:{number}")
        rules = self._rules()
        turn, place = divmod(number, len(rules))
        rule = random.Random(f"{seed}, turn {turn}").sample(rules, len(rules))[place]
        allowed = sorted(rule.methods or ()) or ["GET"]
        method = chance.choice(allowed if chance.random() < 0.9 else METHODS)
        person = chance.choice([*people, None])
        csrf = chance.random() < 0.25
        headers = self._headers(rule, chance, person, known)
        body, content_type = self._body(rule, method, chance, known, person if csrf and chance.random() < 0.7 else None)
        if content_type:
            headers["Content-Type"] = content_type
        query = [(chance.choice(QUERY), values.text(chance, known)) for _ in range(chance.choice([0, 0, 1, 2]))]
        options = {"method": method, "path": self._path(rule, chance, known), "headers": headers, "data": body}
        return Sent(rule.rule, csrf, options | {"query_string": urlencode(query)})

    def _rules(self) -> list[Rule]:
        return sorted(self.app.url_map.iter_rules(), key=lambda rule: (rule.rule, sorted(rule.methods or ())))

    def _path(self, rule: Rule, chance: random.Random, known: Known) -> str:
        def fill(match: re.Match[str]) -> str:
            return quote(
                values.argument(match[2], match[1] or "", chance, known), safe="/" if match[1] == "path" else ""
            )

        return _ARGUMENT.sub(fill, rule.rule)

    def _headers(self, rule: Rule, chance: random.Random, person: Person | None, known: Known) -> dict[str, str]:
        headers: dict[str, str] = {}
        if person:
            headers["Cookie"] = person.cookie
            if rule.rule.startswith("/api/") and chance.random() < 0.9:
                headers["Authorization"] = f"Bearer {person.api_token}"
        extra = {
            "Accept-Language": chance.choice(values.LANGUAGES),
            "If-None-Match": chance.choice(["*", '"x"', "x", 'W/"x", "y"', '"']),
            "Referer": chance.choice(["http://localhost/explore", "http://[", "x", "http://evil.example/"]),
            "Range": chance.choice(["bytes=0-1", "bytes=5-", "bytes=-0", "x"]),
            "Last-Event-ID": _header(values.text(chance, known)),
            "Authorization": chance.choice(
                ["Basic", "Basic !", "Bearer", "Bearer \x01", "Digest x=", "Basic c3VzYW46eA=="]
            ),
            "Cookie": chance.choice(
                ["session=x", "session=.eJx", "remember_token=1|x", ";;;", "session=" + "x" * 3000]
            ),
            "X-Requested-With": "XMLHttpRequest",
            "X-Request-ID": _header(values.text(chance, known)),
        }
        for name in chance.sample(sorted(extra), chance.choice([0, 0, 1, 2])):
            headers[name] = extra[name]
        return headers

    def _body(
        self, rule: Rule, method: str, chance: random.Random, known: Known, signer: Person | None
    ) -> tuple[bytes, str | None]:
        if method in ("GET", "HEAD", "OPTIONS") and chance.random() < 0.95:
            return b"", None
        kind = chance.random()
        if kind < 0.06:
            types = ["application/json", "application/x-www-form-urlencoded", "multipart/form-data", "text/x; x=é", "x"]
            return chance.choice(values.BYTES), _header(chance.choice(types))
        if rule.rule.startswith("/api/") if kind < 0.95 else kind < 0.97:
            names = chance.sample(self.fields, min(len(self.fields), chance.randrange(5)))
            sent: Any = {name: values.json_value(chance, known) for name in names}
            return orjson.dumps(
                sent if chance.random() < 0.95 else values.json_value(chance, known)
            ), "application/json"
        fields = {name: values.text(chance, known) for name in self.forms if chance.random() < 0.5}
        if signer:
            fields["csrf_token"] = signer.csrf_token
        if chance.random() < 0.8:
            return urlencode(fields).encode(), "application/x-www-form-urlencoded"
        return _multipart(fields, chance)


def _form_fields() -> Iterator[str]:
    """The names of all fields of all forms of the site, which have been imported with it."""
    forms: list[type] = [FlaskForm]
    while forms:
        form = forms.pop()
        forms += form.__subclasses__()
        yield from (name for name, value in vars(form).items() if hasattr(value, "field_class"))


def _multipart(fields: dict[str, str], chance: random.Random) -> tuple[bytes, str]:
    written = BytesIO()
    for name, value in fields.items():
        file = f'; filename="{quote(name)}"' if chance.random() < 0.3 else ""
        written.write(f'--fuzz\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode())
        written.write(value.encode() + b"\r\n")
    written.write(b"--fuzz--\r\n" if chance.random() < 0.9 else b"")
    return written.getvalue(), "multipart/form-data; boundary=fuzz"


def _header(text: str) -> str:
    """`text` as a header can carry it: Latin-1, without the ends of lines that no server would let through."""
    return re.sub(r"[\r\n\0]", "", text).encode().decode("latin-1")
