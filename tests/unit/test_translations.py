"""The catalogs: every string of the source is in each of them, translated, with its placeholders and its plurals."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from babel.support import Translations
from wtforms.i18n import messages_path

from config import LANGUAGES as OFFERED
from microblog.i18n import SOURCE_LANGUAGE
from tests.support import pseudo
from tests.support.programs import ROOT

DIRECTORY = ROOT / "microblog" / "translations"
LANGUAGES = [language for language in OFFERED if language != SOURCE_LANGUAGE]
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%%|\{\w+\}")
# What WTForms says by itself where a form does not say it in words of its own.
OF_WTFORMS = ["Not a valid choice.", "Invalid input.", "This field is required.", "Not a valid integer value."]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return pseudo.extract(tmp_path_factory.mktemp("catalog"))


def read(language: str) -> Catalog:
    with (DIRECTORY / language / "LC_MESSAGES" / "messages.po").open("rb") as file:
        return read_po(file, locale=language)


def texts(string: str | Iterable[str]) -> list[str]:
    return [string] if isinstance(string, str) else list(string)


def compiled(language: str) -> Translations:
    translations = Translations.load(DIRECTORY, [language])
    assert isinstance(translations, Translations), "make translations"
    return translations


def test_the_source_has_strings_of_every_kind(template: Catalog) -> None:
    assert template.get("Keep me signed in"), "lazy ones, in forms"
    assert template.get("Sincerely,"), "those of mails"
    assert template.get(("%(num)s follower", "%(num)s followers")), "plurals, in templates"
    assert template.get("Characters left: {n}"), "those of scripts, in attributes"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_string_is_translated(language: str, template: Catalog) -> None:
    catalog = read(language)

    missing = {message.id for message in template} - {message.id for message in catalog}
    left_over = {message.id for message in catalog} - {message.id for message in template}

    assert (missing, left_over) == (set(), set()), "make translations"
    assert [message.id for message in catalog if message.fuzzy or not all(texts(message.string))] == []


@pytest.mark.parametrize(("language", "script"), [("ko", "HANGUL"), ("ru", "CYRILLIC")])
def test_a_sentence_is_in_the_script_of_its_language(language: str, script: str) -> None:
    def is_sentence(text: str) -> bool:
        return len(re.findall(r"[A-Za-z]{2,}", PLACEHOLDER.sub("", text))) > 2

    foreign = [
        message.id
        for message in read(language)
        if is_sentence(texts(message.id)[0])
        and not all(any(script in unicodedata.name(letter, "") for letter in text) for text in texts(message.string))
    ]

    assert foreign == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_the_placeholders_of_its_string(language: str) -> None:
    for message in read(language):
        wanted = {frozenset(PLACEHOLDER.findall(text)) for text in texts(message.id)}
        for text in texts(message.string) if message.id else []:
            assert frozenset(PLACEHOLDER.findall(text)) in wanted, text
            assert not re.search(r"%(?!\(\w+\)[sd]|%)", text) or "%" in texts(message.id)[0], text


@pytest.mark.parametrize(
    ("language", "forms"),
    [
        ("es", {1: "1 seguidor", 2: "2 seguidores", 21: "21 seguidores"}),
        ("ko", {1: "팔로워 1명", 2: "팔로워 2명", 21: "팔로워 21명"}),
        ("ru", {1: "1 подписчик", 3: "3 подписчика", 5: "5 подписчиков", 11: "11 подписчиков", 21: "21 подписчик"}),
    ],
)
def test_plurals_are_those_of_the_language(language: str, forms: dict[int, str]) -> None:
    catalog = compiled(language)

    said = {n: catalog.ungettext("%(num)s follower", "%(num)s followers", n) % {"num": n} for n in forms}

    assert said == forms


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_wtforms_says_is_translated_too(language: str) -> None:
    catalog = Translations.load(messages_path(), [language], domain="wtforms")

    assert [string for string in OF_WTFORMS if catalog.ugettext(string) == string] == []
    longest = ("Field cannot be longer than %(max)d character.", "Field cannot be longer than %(max)d characters.")
    assert catalog.ungettext(*longest, 5) not in longest
