"""What the demo's people say, a file for each language."""

from __future__ import annotations

from microblog.demo.phrases import en, es, ko, ru

BOOKS = (en.BOOK, es.BOOK, ko.BOOK, ru.BOOK)
