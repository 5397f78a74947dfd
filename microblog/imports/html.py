"""The text of a post that was written as HTML elsewhere: what a reader sees, without a browser."""

from __future__ import annotations

from html.parser import HTMLParser

_PARAGRAPHS = frozenset({"p", "div", "blockquote", "ul", "ol", "pre", "h1", "h2", "h3", "h4", "h5", "h6"})
_UNSEEN = frozenset({"script", "style", "template", "head"})


def to_text(html: str) -> str:
    """`html` as plain text: a blank line between paragraphs, a line end for ``<br>``, a bullet for each item of a list.

    A link is its text, which Mastodon makes of the address itself; where it is another, the address follows in
    brackets. Mentions and hashtags are links that keep nothing but their text. Raises ValueError for what is no HTML.
    """
    parser = _Parser()
    try:
        parser.feed(html)
        parser.close()
    except AssertionError as error:  # how the standard library's parser calls some of it
        raise ValueError(str(error)) from None
    return parser.text


class _Parser(HTMLParser):
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
