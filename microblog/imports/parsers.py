"""Parsers of the accepted files: our own archive and the outbox of a Mastodon archive, whose HTML becomes text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any, NamedTuple, NoReturn

from flask_babel import gettext as _

from microblog.clock import utcnow
from microblog.posts.models import MAX_LENGTH
from microblog.validators import is_storable

_PARAGRAPHS = frozenset({"p", "div", "blockquote", "ul", "ol", "pre", "h1", "h2", "h3", "h4", "h5", "h6"})
_UNSEEN = frozenset({"script", "style", "template", "head"})


def html_to_text(html: str) -> str:
    """`html` as plain text: a blank line between paragraphs, a line end for ``<br>``, a bullet for each item of a list.

    A link is its text, which Mastodon makes of the address itself; where it is another, the address follows in
    brackets. Mentions and hashtags are links that keep nothing but their text. Raises ValueError for what is no HTML.
    """
    parser = _TextParser()
    try:
        parser.feed(html)
        parser.close()
    except AssertionError as error:  # how the standard library's parser calls some of it
        raise ValueError(str(error)) from None
    return parser.text


class _TextParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._ends = ""  # the line ends that are due before the next text
        self._unseen = 0  # how many elements we are in whose text nobody sees
        self._verbatim = 0  # how many <pre> we are in
        self._links: list[tuple[str, int]] = []  # the address of each link that we are in, and where its text began

    @property
    def text(self) -> str:
        return "".join(self._parts).strip()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag == "br":
            self._ends += "\n"
        elif tag == "li":
            self._break("\n")
            self._say("• ")
        elif tag in _PARAGRAPHS:
            self._break("\n\n")
            self._verbatim += tag == "pre"
        elif tag == "a":
            known = dict(attributes)
            kinds = (known.get("class") or "").split()
            address = "" if {"mention", "hashtag"} & set(kinds) else known.get("href") or ""
            self._links.append((address, len(self._parts)))
        elif tag == "img":
            self._say(dict(attributes).get("alt") or "")  # a custom emoji's name

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag in _PARAGRAPHS:
            self._break("\n\n")
            self._verbatim = max(0, self._verbatim - (tag == "pre"))
        elif tag == "a" and self._links:
            address, began = self._links.pop()
            if address.startswith(("http://", "https://")) and address != "".join(self._parts[began:]).strip():
                self._say(f" ({address})")

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if self._verbatim:
            self._say(data)
            return
        words = " ".join(data.split())
        if not words:
            self._space()
            return
        if data[0].isspace():
            self._space()
        self._say(words)
        if data[-1].isspace():
            self._space()

    def _say(self, text: str) -> None:
        if not text:
            return
        if self._parts and self._ends:
            if self._parts[-1] == " ":
                self._parts.pop()
            self._parts.append(self._ends)
            text = text if self._verbatim else text.lstrip()
        self._ends = ""
        self._parts.append(text)

    def _space(self) -> None:
        if self._parts and not self._ends and not self._parts[-1].endswith((" ", "\n")):
            self._parts.append(" ")

    def _break(self, ends: str) -> None:
        """Begin a new paragraph or item, unless one has just begun."""
        if len(ends) > len(self._ends):
            self._ends = ends


# A post has 140 characters; of HTML that has many times more, the parser's time grows with the square.
MAX_HTML = 5000

#: No post is older; and a time near the year 1 cannot be shown in every zone.
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_EVERYBODY = frozenset({"https://www.w3.org/ns/activitystreams#Public", "as:Public", "Public"})


class Draft(NamedTuple):
    """A post that may come in: `timestamp` is aware, in UTC; `has_media` if it came with what stays out."""

    body: str
    timestamp: datetime
    has_media: bool = False


class Refused(Exception):
    """The post cannot be kept here; the message is a sentence that says why."""


class LeftOut(Exception):
    """The entry is not a post of its writer's for everybody; `kind` is what it is: a boost, private, something else."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


BOOST, PRIVATE, OTHER = "boosts", "private", "other"


def from_archive(entry: Any) -> Draft:
    """A post of our own archive: ``{"body": …, "timestamp": …}``. Raises Refused.

    It is taken to the letter, so that what was exported from here comes back as it was.
    """
    if not isinstance(entry, dict):
        raise Refused(_("It is not a post."))
    return _draft(entry.get("body"), entry.get("timestamp"))


def from_outbox(entry: Any) -> Draft:
    """An activity of a Mastodon outbox, if it is a note to everybody. Raises LeftOut and Refused.

    Boosts are what others wrote; what was not public or unlisted was not meant for everybody, who reads here.
    """
    if not isinstance(entry, dict):
        raise Refused(_("It is not a post."))
    if entry.get("type") == "Announce":
        raise LeftOut(BOOST)
    note = entry.get("object")
    if entry.get("type") != "Create" or not isinstance(note, dict) or note.get("type") != "Note":
        raise LeftOut(OTHER)
    if not _EVERYBODY & {*_texts(note.get("to")), *_texts(note.get("cc"))}:
        raise LeftOut(PRIVATE)
    content = note.get("content")
    text = _text_of(content) if isinstance(content, str) else content
    warning = note.get("summary")
    if isinstance(text, str) and isinstance(warning, str) and warning.strip():
        text = f"{warning.strip()}\n\n{text}"
    has_media = bool(note.get("attachment"))
    if has_media and text == "":
        raise Refused(_("It has no text, only pictures, sound or video, which cannot be kept here."))
    return _draft(text, note.get("published") or entry.get("published"))._replace(has_media=has_media)


#: How to read the entries of each list that a file may have.
FORMATS: dict[str, Callable[[Any], Draft]] = {"posts": from_archive, "orderedItems": from_outbox}


def _draft(body: Any, timestamp: Any) -> Draft:
    if not isinstance(body, str):
        raise Refused(_("It has no text."))
    if not body.strip():
        raise Refused(_("It is empty."))
    if not is_storable(body):
        raise Refused(_("It has characters that cannot be kept (NUL or half a character)."))
    if len(body) > MAX_LENGTH:
        _refuse_length(len(body))
    return Draft(body, _moment(timestamp))


def _text_of(html: str) -> str:
    if len(html) > MAX_HTML:
        _refuse_length(len(html))
    try:
        return html_to_text(html)
    except ValueError:
        raise Refused(_("It is not a post.")) from None


def _refuse_length(length: int) -> NoReturn:
    raise Refused(
        _("It has %(length)d characters; a post here has at most %(limit)d.", length=length, limit=MAX_LENGTH)
    )


def _moment(timestamp: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(timestamp)
        if moment.tzinfo is None:
            raise Refused(_("Its time does not say in which zone it is."))
        moment = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise Refused(_("Its time is not one (such as 2026-11-21T09:30:00Z).")) from None
    if moment < _EARLIEST:
        raise Refused(_("Its time is before 1970."))
    if moment > utcnow():
        raise Refused(_("Its time is in the future."))
    return moment


def _texts(value: Any) -> list[str]:
    """ActivityStreams writes one value, or a list of several."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]
