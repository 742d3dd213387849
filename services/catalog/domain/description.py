"""Descriptions are kept as plain text: what a shop's page shows can then carry no script and no tracker.

Text survives the way out and in again: `text_of(html_of(text)) == text` for every text that `tidy` gave.
"""

import re
from html import escape
from html.parser import HTMLParser

_BLANKS = re.compile(r"[ \t\f\v]+")
_AROUND_LINES = re.compile(r" ?\n ?")
_GAPS = re.compile(r"\n{3,}")
_PARAGRAPHS = frozenset({
    "address", "article", "aside", "blockquote", "div", "dl", "figure", "footer", "h1", "h2", "h3", "h4",
    "h5", "h6", "header", "hr", "main", "ol", "p", "pre", "section", "table", "ul",
})  # fmt: skip
_LINES = frozenset({"br", "dd", "dt", "tr"})
_HIDDEN = frozenset({"script", "style", "template", "noscript", "iframe", "object"})


def tidy(text: str) -> str:
    """The one form of a text: single blanks, at most one empty line, nothing around it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _AROUND_LINES.sub("\n", _BLANKS.sub(" ", text))
    return _GAPS.sub("\n\n", text).strip(" \n")


def text_of(html: str) -> str:
    """The text of a piece of HTML; lists become lines with a dash."""
    reader = _TextOf()
    reader.feed(html)
    reader.close()
    return tidy("".join(reader.parts))


def html_of(text: str) -> str:
    """Paragraphs and line breaks of a text as HTML, everything else escaped."""
    paragraphs = (escape(part, quote=False).replace("\n", "<br>") for part in text.split("\n\n"))
    return "".join(f"<p>{part}</p>" for part in paragraphs) if text else ""


class _TextOf(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self._hidden += 1
        elif tag in _PARAGRAPHS:
            self.parts.append("\n\n")
        elif tag in _LINES:
            self.parts.append("\n")
        elif tag == "li":
            self.parts.append("\n- ")

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self._hidden = max(0, self._hidden - 1)
        elif tag in _PARAGRAPHS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            # Line ends in the source of a page are blanks.
            self.parts.append(re.sub(r"[ \t\f\v\r\n]+", " ", data))
