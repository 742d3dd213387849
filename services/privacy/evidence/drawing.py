"""What is on the page of a certificate, and where: text in one column, its own typeface, the certificate in it."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import fontpkg
import orjson
from babel.dates import format_datetime
from fpdf import FPDF
from fpdf.enums import XPos, YPos
from joserfc.jwk import ECKey

from services.privacy.wording import day
from services.privacy.words import CATEGORIES, GROUNDS, PURPOSES, RIGHTS, said
from vitrine import pdf, signing

_FONT = "Open Sans"
_INK, _SOFT, _LINE, _ACCENT = (28, 36, 33), (90, 103, 98), (217, 223, 219), (31, 95, 79)
_LABEL = 46
"""Millimetres for what stands before a fact."""

Document = Mapping[str, Any]


def drawn(document: Document, language: str, url: str, key: ECKey) -> bytes:
    """The bytes of the page, signed."""
    page = _Page(enforce_compliance="PDF/A-3U")
    page.add_font(_FONT, "", fontpkg.path(_FONT))
    page.begin(document["certificate"], language, url)
    page.attach(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    unsigned = bytes(page.output())
    return pdf.with_signature(unsigned, signing.detached(unsigned, typ=signing.PAGE, key=key))


@cache
def _words(language: str) -> Mapping[str, Any]:
    return orjson.loads((files("services.privacy") / "pages" / f"certificate.{language}.json").read_bytes())


class _Page(FPDF):
    """Everything on it is text in one column."""

    words: Mapping[str, Any]
    language: str

    def begin(self, certificate: Document, language: str, url: str) -> None:
        """Write all of it."""
        self.words, self.language = _words(language), language
        self.set_lang(language)
        self.set_title(f"{self.words['title']} {certificate['id']}")
        self.set_creator("Vitrine")
        self.set_creation_date(datetime.fromisoformat(certificate["issued_at"]))
        self.set_margins(22, 20, 22)
        self.set_auto_page_break(True, margin=22)
        self.alias_nb_pages()
        self.add_page()
        self._opening(certificate)
        self._request(certificate["request"])
        if certificate["keys"] is not None:
            self._keys(certificate["keys"])
        if certificate["participants"]:
            self._kept(certificate)
            self._participants(certificate["participants"])
        self._check(certificate, url)

    def attach(self, content: bytes) -> None:
        """The certificate, and the place of the signature over the page."""
        self.embed_file(
            bytes=content, basename="certificate.json", mime_type="application/json",
            associated_file_relationship="Source", desc=self.words["title"],
        )  # fmt: skip
        self.embed_file(
            bytes=b" " * pdf.SIGNATURE_BYTES, basename="page.jws", mime_type="application/jose",
            associated_file_relationship="Supplement", desc="JWS",
        )  # fmt: skip

    def footer(self) -> None:
        """FPDF calls it at the end of every page."""
        self.set_y(-15)
        self._type(8, colour=_SOFT)
        self.cell(0, 5, self.words["page"].format(page=self.page_no(), pages="{nb}"), align="R")

    # --- Parts -------------------------------------------------------------------------------------------

    def _opening(self, certificate: Document) -> None:
        words, request = self.words, certificate["request"]
        store = certificate["store"]["name"] or words["a_store"]
        right = said(RIGHTS, request["right"], self.language)
        self._text(store, size=10, colour=_SOFT)
        self._text(words["title"], size=24, colour=_ACCENT, after=3)
        self._text(words["opening"][request["outcome"]].format(store=store, right=right), size=12, after=1)
        if (completes := certificate["completes"]) is not None:
            self._text(words["completes"].format(id=completes["id"]))

    def _request(self, request: Document) -> None:
        words, language = self.words, self.language
        self._heading(words["request"])
        self._fact(words["number"], request["id"])
        self._fact(words["law"], words["laws"].get(request["law"], request["law"]))
        if request["purpose"]:
            self._fact(words["scope"], said(PURPOSES, request["purpose"], language))
        if request["category"]:
            self._fact(words["scope"], said(CATEGORIES, request["category"], language))
        for name in ("opened", "verified"):
            if request[f"{name}_at"]:
                self._fact(words[name], self._moment(request[f"{name}_at"]))
        self._fact(words[request["outcome"]], self._moment(request["ended_at"]))
        if request["ground"]:
            ground = said(GROUNDS, request["ground"], language)
            self._fact(
                words["ground"], f"{ground} ({request['authority']})" if request["authority"] else ground
            )

    def _keys(self, keys: Document) -> None:
        words = self.words
        moment, forgotten = self._moment(keys["destroyed_at"]), self._moment(keys["forgotten_by"])
        self._heading(words["keys"])
        text = words["destroyed" if keys["destroyed"] else "nothing_destroyed"]
        self._text(text.format(moment=moment, forgotten=forgotten))
        if keys["destroyed"]:
            self._text(words["backups"].format(day=self._day(keys["backups_lapse_on"])))

    def _kept(self, certificate: Document) -> None:
        self._heading(self.words["kept"])
        # The keyring's own lines say the same again; several services may keep what a reader knows as one thing.
        lines = dict.fromkeys(self._kept_line(one) for one in certificate["kept"] if one["kind"] != "key")
        for line in lines:
            self._text(f"•  {line}")
        if not lines:
            self._text(self.words["kept_none"])

    def _kept_line(self, one: Document) -> str:
        words = self.words
        what = words["retentions"].get(one["retention"], one["kind"])
        if "ended_on" in one:
            return words["kept_ended"].format(what=what, day=self._day(one["ended_on"]), ground=one["ground"])
        if one["until"] is None:
            return words["kept_open"].format(what=what, ground=one["ground"])
        return words["kept_line"].format(what=what, day=self._day(one["until"]), ground=one["ground"])

    def _participants(self, participants: Iterable[Document]) -> None:
        words = self.words
        self._heading(words["who"])
        for one in participants:
            name = words["services"].get(one["participant"], one["participant"])
            self._text(words["did"].format(name=name, done=self._done(one)), after=0)
            for line in [*self._reread(one), *self._failures(one)]:
                self._text(line, size=9, colour=_SOFT, after=0)
            self.ln(1.5)

    def _done(self, one: Document) -> str:
        words, number = self.words, sum(one["counts"].values())
        outcome = words["outcomes"].get(one["outcome"], one["outcome"])
        if not number:
            return outcome
        single, several = (
            ("one_key", "destroyed_keys") if one["participant"] == "keyring" else ("one_row", "rows")
        )
        return f"{outcome} ({words[single if number == 1 else several].format(number=number)})"

    def _reread(self, one: Document) -> Iterable[str]:
        words, checked = self.words, one["checked"]
        if checked is None:
            return
        if one["participant"] == "keyring":
            yield words["no_live_key"]
            return
        tables = ", ".join(checked["reread"])
        yield words["reread"].format(tables=tables) if tables else words["reread_none"]
        by_reason: dict[str, list[str]] = {}
        for table, why in sorted(checked["skipped"].items()):
            by_reason.setdefault(why, []).append(table)
        for why, passed in by_reason.items():
            yield words["skipped"].format(tables=", ".join(passed), why=words["whys"].get(why, why))

    def _failures(self, one: Document) -> Iterable[str]:
        times = sum(failure["times"] for failure in one["failures"])
        if times:
            yield self.words["failures"].format(times=times)

    def _check(self, certificate: Document, url: str) -> None:
        words, log = self.words, certificate["log"]
        self._heading(words["check"])
        self._text(words["check_how"].format(url=url), size=9)
        self._text(
            words["check_log"].format(entries=len(certificate["entries"]), size=log["size"]), size=9, after=0
        )
        self._text(log["root"], size=8, colour=_SOFT)
        self._text(words["check_not"], size=9)
        issued = self._moment(certificate["issued_at"])
        self._text(words["issued"].format(id=certificate["id"], moment=issued), size=9, colour=_SOFT)

    # --- Setting type ------------------------------------------------------------------------------------

    def _type(self, size: float, *, colour: tuple[int, int, int] = _INK) -> None:
        self.set_font(_FONT, "", size)
        self.set_text_color(*colour)

    def _text(
        self,
        text: str,
        *,
        size: float = 10,
        colour: tuple[int, int, int] = _INK,
        after: float = 1.5,
    ) -> None:
        self._type(size, colour=colour)
        self.multi_cell(0, size * 0.52, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(after)

    def _heading(self, text: str) -> None:
        self.ln(3)
        if self.will_page_break(18):
            self.add_page()
        self.set_draw_color(*_LINE)
        self.line(self.l_margin, self.y, self.w - self.r_margin, self.y)
        self.ln(3)
        self._text(text, size=13, colour=_ACCENT)

    def _fact(self, name: str, value: str) -> None:
        self._type(10, colour=_SOFT)
        self.cell(_LABEL, 6, name)
        self._type(10)
        self.multi_cell(0, 6, value, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)

    # --- Times -------------------------------------------------------------------------------------------

    def _moment(self, text: str) -> str:
        at = datetime.fromisoformat(text).astimezone(UTC)
        return f"{format_datetime(at, 'd MMMM y, HH:mm:ss', locale=self.language)} UTC"

    def _day(self, text: str) -> str:
        return day(date.fromisoformat(text), self.language)
