"""`make translations`: update the catalogs from the source and list untranslated strings.

A catalog is sorted by message and contains no line numbers, so that branches can be merged. A changed string loses its
translation, since a fuzzy one would be wrong. New languages are added to LANGUAGES in config.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BytesIO

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.pofile import read_po, write_po

from config import LANGUAGES, ROOT
from microblog.i18n import catalog_path

SOURCE = ROOT / "microblog"
DIRECTORY = SOURCE / "translations"
SOURCE_LANGUAGE = "en"
METHODS = [("**.py", "python"), ("templates/**.html", "jinja2"), ("templates/**.txt", "jinja2")]
KEYWORDS = {**DEFAULT_KEYWORDS, "_l": None, "lazy_gettext": None, "lazy_ngettext": (1, 2), "_ln": (1, 2)}


def extract() -> Catalog:
    """All strings that the source has for its readers."""
    template = Catalog(project="Microblog", fuzzy=False)
    found = extract_from_dir(
        SOURCE, METHODS, keywords=KEYWORDS, comment_tags=("Translators:",), strip_comment_tags=True
    )
    for _file, _line, string, comments, context in found:
        template.add(string, auto_comments=comments, context=context)
    return template


def read(language: str) -> Catalog:
    """The catalog of `language`; an empty one if there is none yet."""
    path = catalog_path(language, DIRECTORY)
    if not path.exists():
        return Catalog(locale=language)
    with path.open("rb") as source:
        return read_po(source, locale=language)


def merged(language: str, template: Catalog) -> Catalog:
    """The catalog of `language` with the strings of `template`, no others, and what is translated of them."""
    catalog = read(language)
    catalog.update(template, no_fuzzy_matching=True, update_creation_date=False)
    catalog.obsolete.clear()
    catalog.fuzzy = False
    return catalog


def rendered(catalog: Catalog) -> bytes:
    """The file of `catalog`."""
    body = BytesIO()
    write_po(body, catalog, omit_header=True, no_location=True, sort_output=True, width=0, ignore_obsolete=True)
    return _header(catalog) + body.getvalue()


def wanting(catalog: Catalog) -> Iterator[Message]:
    """The strings of `catalog` that a translator has yet to look at."""
    for message in catalog:
        texts = message.string if isinstance(message.string, (list, tuple)) else [message.string]
        if message.id and (message.fuzzy or not all(texts)):
            yield message


def languages() -> list[str]:
    """The languages that have a catalog: all that the site offers, but the source's own."""
    return [language for language in LANGUAGES if language != SOURCE_LANGUAGE]


def _header(catalog: Catalog) -> bytes:
    """Return the minimal header of a catalog; a date would make two branches differ."""
    return (
        'msgid ""\nmsgstr ""\n'
        '"Content-Type: text/plain; charset=utf-8\\n"\n'
        '"Content-Transfer-Encoding: 8bit\\n"\n'
        f'"Language: {catalog.locale_identifier}\\n"\n'
        f'"Plural-Forms: {catalog.plural_forms}\\n"\n\n'
    ).encode()


def main() -> None:
    """Update every catalog, and list what is wanting. Exits with 1 if anything is."""
    template = extract()
    complete = True
    for language in languages():
        catalog = merged(language, template)
        path = catalog_path(language, DIRECTORY)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rendered(catalog))
        missing = list(wanting(catalog))
        complete &= not missing
        done = len(catalog) - len(missing)
        print(f"{language}: {done} of {len(catalog)} strings are translated ({path.relative_to(ROOT)})")
        for message in missing:
            print(f"  {message.id if isinstance(message.id, str) else message.id[0]}")
    sys.exit(not complete)


if __name__ == "__main__":
    main()
