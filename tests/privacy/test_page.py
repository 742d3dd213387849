"""The archive's page in a real browser: on a phone and on a desk, without a network, light and dark."""

import asyncio
import os
import zipfile
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from deploy.local.waiting import until
from tests.browser import browsing
from tests.privacy.archives import announce, archive_of, exported, invoice, link, purchase
from tests.privacy.conftest import Platform
from tests.serving import serving

LONG = "Anticonstitutionnellement-Donaudampfschifffahrtsgesellschaft-canary-without-a-blank-in-it-at-all" * 2
PHONE, DESK = (360, 800), (1280, 900)


def order(number: str, total: int, state: str, **changes: Any) -> dict[str, Any]:
    record = purchase(
        number, name="Zoé Canary", state=state, total_amount=total, currency="EUR", payment_method="bank_transfer",
        placed_at="2026-03-05T10:00:00+00:00", paid_at=None,
    )  # fmt: skip
    record["data"] |= {
        "address": {
            "line1": "12 rue des Carmes", "line2": "", "postcode": "45000", "city": "Orléans", "country": "FR",
        },
        **changes,
    }  # fmt: skip
    record["attached"] = {
        "order_line": [
            {"sku": "THE-01", "title": "Thé fumé, 100 g", "quantity": 2, "unit_price": 1250},
            {"sku": "TAS-07", "title": "Tasse <i>bleue</i>", "quantity": 1, "unit_price": 1990},
        ]
    }
    return record


RECORDS = [
    order("1001", 4490, "paid", note=LONG),
    order("1002", 123450, "awaiting_payment", photo={
        "name": "reçu.png", "media_type": "image/png", "content": b64encode(b"\x89PNG").decode(),
    }),
    invoice(),
    purchase("1003") | {"data": None, "unreadable": "erased"},
]  # fmt: skip


@pytest.mark.parametrize("language", ["en", "fr"])
@pytest.mark.parametrize(("size", "dark"), [(PHONE, False), (PHONE, True), (DESK, False)])
async def test_a_person_reads_the_page_anywhere(
    platform: Platform, tmp_path: Path, language: str, size: tuple[int, int], dark: bool
) -> None:
    await announce(platform)
    person = await platform.person()
    files = await archive_of(platform, person, [RECORDS], language=language)
    files.extractall(tmp_path)
    page = tmp_path / "index.html"
    async with browsing() as tab:
        await tab.open(page.as_uri(), width=size[0], height=size[1], dark=dark)
        text = await tab.evaluate("document.body.innerText")
        for value in (person.email, "Zoé Canary", "Orléans", "Tasse <i>bleue</i>", "France", LONG):
            assert value in text, value
        assert await tab.evaluate("document.documentElement.lang") == language
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await tab.evaluate(wide) == 0, "the page scrolls sideways"
        outside = (
            "[...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right >"
            " innerWidth + 1 && getComputedStyle(one).position !== 'fixed').length"
        )
        assert await tab.evaluate(outside) == 0, "something is beyond the edge"
        assert await tab.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 16
        assert await tab.evaluate(CONTRAST) >= 4.5, "WCAG 2.2, 1.4.3"
        await tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert await tab.evaluate(wide) == 0
        [file] = await tab.evaluate("[...document.querySelectorAll('a[href*=files]')].map(one => one.href)")
        assert unquote(file).removeprefix(f"file://{tmp_path}/") in files.namelist()
        assert tab.complaints == []
        assert [url for url in tab.requests if not url.startswith(("file:", "data:", "about:"))] == []
        if "SCREENSHOTS" in os.environ:
            shade = "dark" if dark else "light"
            _keep(await tab.screenshot(), f"{language}-{size[0]}-{shade}.png")


async def test_the_page_of_the_link_lets_the_browser_itself_fetch_the_archive(
    platform: Platform, tmp_path: Path
) -> None:
    person = await platform.person()
    request_id = await exported(platform, person, [[purchase()]])
    token = await link(platform, person, request_id)
    archive = tmp_path / f"export-{request_id}.zip"
    words = "document.getElementById('text').textContent"
    async with serving(platform.app) as url, browsing() as tab:
        await tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        await tab.open(f"{url}/privacy/download?language=fr#token={token}", width=360, height=800)
        await tab.evaluate("document.getElementById('button').click()")
        await until(partial(asyncio.to_thread, archive.exists), 30, "nothing was downloaded")
        assert "téléchargement a commencé" in await tab.evaluate(words)
        assert zipfile.ZipFile(archive).testzip() is None
        assert not [url for url in tab.requests if token in url.partition("#")[0]], (
            "the token is in an address"
        )
        assert tab.complaints == []
        await tab.open(f"{url}/privacy/download?language=fr&again#token=unknown", width=360, height=800)
        await tab.evaluate("document.getElementById('button').click()")

        async def said() -> bool:
            return "plus valable" in await tab.evaluate(words)

        await until(said, 10, "nobody said that the link is not valid")


def _keep(picture: bytes, name: str) -> None:
    """For who wants to look at the page: SCREENSHOTS names a folder."""
    Path(os.environ["SCREENSHOTS"], name).write_bytes(picture)


# The smallest contrast of any text on the page with what is behind it, as WCAG 2.2 computes it.
CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(one => one / 255)
    .map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = one => {
    for (; one; one = one.parentElement) {
      const found = rgb(getComputedStyle(one).backgroundColor);
      if (found[3] > 0) return found;
    }
    return [255, 255, 255, 255];
  };
  return Math.min(...[...document.querySelectorAll('body *')]
    .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()))
    .map(one => [light(rgb(getComputedStyle(one).color)), light(behind(one))].sort((a, b) => b - a))
    .map(([more, less]) => (more + 0.05) / (less + 0.05)));
})()
"""
