"""Translation catalogs: each translates every string of the source, with its placeholders and plural forms."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po
from babel.support import Translations
from wtforms.i18n import messages_path

from config import LANGUAGES
from microblog.i18n import SOURCE_LANGUAGE
from tests.support import pseudolocale
from tests.support.programs import ROOT

DIRECTORY = ROOT / "microblog" / "translations"
TARGET_LANGUAGES = [language for language in LANGUAGES if language != SOURCE_LANGUAGE]
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%%|\{\w+\}")
# Messages of WTForms that are shown where a form does not set its own.
OF_WTFORMS = ["Not a valid choice.", "Invalid input.", "This field is required.", "Not a valid integer value."]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return pseudolocale.extract(tmp_path_factory.mktemp("catalog"))


def read(language: str) -> Catalog:
    with (DIRECTORY / language / "LC_MESSAGES" / "messages.po").open("rb") as file:
        return read_po(file, locale=language)


def texts(string: str | Iterable[str] | None) -> list[str]:
    assert string is not None
    return [string] if isinstance(string, str) else list(string)


def compiled(language: str) -> Translations:
    translations = Translations.load(DIRECTORY, [language])
    assert isinstance(translations, Translations), "make translations"
    return translations


def test_extraction_finds_every_kind_of_string(template: Catalog) -> None:
    assert template.get("Keep me signed in"), "lazy strings in forms"
    assert template.get("Sincerely,"), "strings in mails"
    assert template.get(("%(num)s follower", "%(num)s followers")), "plurals in templates"
    assert template.get("Characters left: {n}"), "strings of scripts, in attributes"


@pytest.mark.parametrize("language", TARGET_LANGUAGES)
def test_every_string_is_translated(language: str, template: Catalog) -> None:
    catalog = read(language)

    missing = {message.id for message in template} - {message.id for message in catalog}
    obsolete = {message.id for message in catalog} - {message.id for message in template}

    assert (missing, obsolete) == (set(), set()), "make translations"
    assert [message.id for message in catalog if message.fuzzy or not all(texts(message.string))] == []


@pytest.mark.parametrize(("language", "script"), [("ko", "HANGUL"), ("ru", "CYRILLIC")])
def test_sentences_use_script_of_language(language: str, script: str) -> None:
    def is_sentence(text: str) -> bool:
        return len(re.findall(r"[A-Za-z]{2,}", PLACEHOLDER.sub("", text))) > 2

    foreign = [
        message.id
        for message in read(language)
        if is_sentence(texts(message.id)[0])
        and not all(any(script in unicodedata.name(letter, "") for letter in text) for text in texts(message.string))
    ]

    assert foreign == []


@pytest.mark.parametrize("language", TARGET_LANGUAGES)
def test_translations_keep_placeholders(language: str) -> None:
    for message in read(language):
        allowed = {frozenset(PLACEHOLDER.findall(text)) for text in texts(message.id)}
        for text in texts(message.string) if message.id else []:
            assert frozenset(PLACEHOLDER.findall(text)) in allowed, text
            assert not re.search(r"%(?!\(\w+\)[sd]|%)", text) or "%" in texts(message.id)[0], text


@pytest.mark.parametrize(
    ("language", "forms"),
    [
        ("es", {1: "1 seguidor", 2: "2 seguidores", 21: "21 seguidores"}),
        ("ko", {1: "팔로워 1명", 2: "팔로워 2명", 21: "팔로워 21명"}),
        ("ru", {1: "1 подписчик", 3: "3 подписчика", 5: "5 подписчиков", 11: "11 подписчиков", 21: "21 подписчик"}),
    ],
)
def test_plural_forms_follow_language(language: str, forms: dict[int, str]) -> None:
    catalog = compiled(language)

    translated = {n: catalog.ungettext("%(num)s follower", "%(num)s followers", n) % {"num": n} for n in forms}

    assert translated == forms


@pytest.mark.parametrize("language", TARGET_LANGUAGES)
def test_wtforms_messages_are_translated(language: str) -> None:
    catalog = Translations.load(messages_path(), [language], domain="wtforms")

    assert [string for string in OF_WTFORMS if catalog.ugettext(string) == string] == []
    longest = ("Field cannot be longer than %(max)d character.", "Field cannot be longer than %(max)d characters.")
    assert catalog.ungettext(*longest, 5) not in longest


def test_catalogs_are_as_pybabel_writes_them(template: Catalog, tmp_path: Path) -> None:
    pot = tmp_path / "messages.pot"
    with pot.open("wb") as file:
        write_po(file, template, no_location=True, sort_output=True)
    options = ["--no-fuzzy-matching", "--ignore-obsolete", "--no-wrap", "--ignore-pot-creation-date"]
    command = [
        sys.executable,
        "-m",
        "babel.messages.frontend",
        "update",
        "--check",
        "-i",
        str(pot),
        "-d",
        str(DIRECTORY),
    ]

    checked = subprocess.run([*command, *options], capture_output=True, text=True)

    assert checked.returncode == 0, f"make translations: {checked.stdout}{checked.stderr}"
