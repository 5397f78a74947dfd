"""Parsers of the accepted files: the archive of an export, and the outbox of a Mastodon archive (HTML becomes text)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, NoReturn

from flask_babel import gettext as _
from lxml import etree

from microblog.clock import utcnow
from microblog.posts.models import MAX_POST
from microblog.validators import is_storable

_BLOCKS = frozenset({"p", "div", "blockquote", "ul", "ol", "pre", "h1", "h2", "h3", "h4", "h5", "h6"})
_INVISIBLE = frozenset({"script", "style", "template", "head"})

# Characters; far more than a post of 140 characters needs.
MAX_HTML = 5000
BOOST, PRIVATE, OTHER = "boosts", "private", "other"


def html_to_text(html: str) -> str:
    """Return `html` as plain text: blank lines between paragraphs, a line end for ``<br>``, a bullet for a list item.

    A link becomes its text, followed by the URL in brackets if the two differ (in Mastodon they are usually equal).
    Mentions and hashtags become their text only. Invalid HTML is read as browsers do.
    """
    parser = etree.HTMLParser(target=_Text(), huge_tree=True)  # the time is proportional to the length
    parser.feed(html)
    text: str = parser.close()
    return text


class _Text:
    """Receives the events of the parser of lxml; close() returns the text."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._ends = ""  # line ends to insert before the next text
        self._invisible = 0  # nesting depth of elements without visible text
        self._verbatim = 0  # nesting depth of <pre>
        self._links: list[tuple[str, int]] = []  # of each open link, the URL and the index of its first part

    def close(self) -> str:
        return "".join(self._parts).strip()

    def comment(self, text: str) -> None:
        """Do nothing. The parser requires this method."""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag in _INVISIBLE:
            self._invisible += 1
        elif tag == "br":
            self._ends += "\n"
        elif tag == "li":
            self._break("\n")
            self._append("• ")
        elif tag in _BLOCKS:
            self._break("\n\n")
            self._verbatim += tag == "pre"
        elif tag == "a":
            kinds = attributes.get("class", "").split()
            url = "" if {"mention", "hashtag"} & set(kinds) else attributes.get("href", "")
            self._links.append((url, len(self._parts)))
        elif tag == "img":
            self._append(attributes.get("alt", ""))  # a custom emoji's name

    def end(self, tag: str) -> None:
        if tag in _INVISIBLE:
            self._invisible = max(0, self._invisible - 1)
        elif tag in _BLOCKS:
            self._break("\n\n")
            self._verbatim = max(0, self._verbatim - (tag == "pre"))
        elif tag == "a" and self._links:
            url, first = self._links.pop()
            if url.startswith(("http://", "https://")) and url != "".join(self._parts[first:]).strip():
                self._append(f" ({url})")

    def data(self, data: str) -> None:
        if self._invisible:
            return
        if self._verbatim:
            self._append(data)
            return
        words = " ".join(data.split())
        if not words:
            self._space()
            return
        if data[0].isspace():
            self._space()
        self._append(words)
        if data[-1].isspace():
            self._space()

    def _append(self, text: str) -> None:
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
        """Start a new paragraph or item, unless one has just been started."""
        if len(ends) > len(self._ends):
            self._ends = ends


CLOCK_TOLERANCE = timedelta(minutes=5)  # by which the machine that wrote an archive may be ahead of this one
#: No post is older, and a time near the year 1 cannot be converted to every time zone.
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_PUBLIC = frozenset({"https://www.w3.org/ns/activitystreams#Public", "as:Public", "Public"})


class ParsedPost(NamedTuple):
    """A valid post: `timestamp` is aware, in UTC; `has_media` if it has attachments, which are not imported."""

    body: str
    timestamp: datetime
    has_media: bool = False


class EntryRejected(Exception):
    """The post cannot be imported; the message is a sentence with the reason."""


class EntrySkipped(Exception):
    """The entry is not a public post by the author; `kind` is BOOST, PRIVATE or OTHER."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def from_archive(entry: Any) -> ParsedPost:
    """Parse a post of an exported archive: ``{"body": …, "timestamp": …}``. Raises EntryRejected.

    The text is not changed, so that an export can be imported without loss.
    """
    if not isinstance(entry, dict):
        raise EntryRejected(_("It is not a post."))
    return _parsed_post(entry.get("body"), entry.get("timestamp"))


def from_outbox(entry: Any) -> ParsedPost:
    """Parse an activity of a Mastodon outbox, if it is a public or unlisted note.

    Raises EntrySkipped and EntryRejected.

    Boosts are left out since others wrote them, and notes for a limited audience since all posts here are public.
    """
    if not isinstance(entry, dict):
        raise EntryRejected(_("It is not a post."))
    if entry.get("type") == "Announce":
        raise EntrySkipped(BOOST)
    note = entry.get("object")
    if entry.get("type") != "Create" or not isinstance(note, dict) or note.get("type") != "Note":
        raise EntrySkipped(OTHER)
    if not _PUBLIC & {*_strings(note.get("to")), *_strings(note.get("cc"))}:
        raise EntrySkipped(PRIVATE)
    content = note.get("content")
    text = _plain_text(content) if isinstance(content, str) else content
    warning = note.get("summary")
    if isinstance(text, str) and isinstance(warning, str) and warning.strip():
        text = f"{warning.strip()}\n\n{text}"
    has_media = bool(note.get("attachment"))
    if has_media and text == "":
        raise EntryRejected(_("It has no text, only pictures, sound or video, which cannot be kept here."))
    return _parsed_post(text, note.get("published") or entry.get("published"))._replace(has_media=has_media)


#: The parser of each list that a file may have, by its key.
FORMATS: dict[str, Callable[[Any], ParsedPost]] = {"posts": from_archive, "orderedItems": from_outbox}


def _parsed_post(body: Any, timestamp: Any) -> ParsedPost:
    if not isinstance(body, str):
        raise EntryRejected(_("It has no text."))
    if not body.strip():
        raise EntryRejected(_("It is empty."))
    if not is_storable(body):
        raise EntryRejected(_("It has characters that cannot be kept (NUL or half a character)."))
    if len(body) > MAX_POST:
        _reject_length(len(body))
    return ParsedPost(body, _parse_time(timestamp))


def _plain_text(html: str) -> str:
    if not is_storable(html):
        raise EntryRejected(_("It has characters that cannot be kept (NUL or half a character)."))
    if len(html) > MAX_HTML:
        _reject_length(len(html))
    return html_to_text(html)


def _reject_length(length: int) -> NoReturn:
    raise EntryRejected(
        _("It has %(length)d characters; a post here has at most %(limit)d.", length=length, limit=MAX_POST)
    )


def _parse_time(timestamp: Any) -> datetime:
    try:
        time = datetime.fromisoformat(timestamp)
        if time.tzinfo is None:
            raise EntryRejected(_("Its time does not say in which zone it is."))
        time = time if time.tzinfo is UTC else time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise EntryRejected(_("Its time is not one (such as 2026-11-21T09:30:00Z).")) from None
    if time < _EARLIEST:
        raise EntryRejected(_("Its time is before 1970."))
    if time > utcnow() + CLOCK_TOLERANCE:
        raise EntryRejected(_("Its time is in the future."))
    return time


def _strings(value: Any) -> list[str]:
    """Return the strings of an ActivityStreams property, which is one value or a list."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]
