"""The archive a person gets: a page to read, the same as JSON and CSV with its form, files, and a signed list of
hashes; written as a stream.

It is made from sealed chunks, a chunk in memory at a time. A file of it is written at once, so a first pass learns
which columns the tables have and in which chunks they are.
"""

import asyncio
import hashlib
import stat
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from io import RawIOBase
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import orjson
from joserfc.jwk import ECKey

from libs.common.personal.answers import detached
from services.privacy.archive import documents, page, spreadsheet
from services.privacy.archive.export import Export
from services.privacy.archive.survey import Tables, survey

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.jws"

_MODE = stat.S_IFREG | 0o600
_WRITTEN_AT_ONCE = 256 * 1024
"""What is compressed in one go, on another thread; most people's files are smaller, and a thread costs more."""

_Content = tuple[str, AsyncIterable[bytes]]


async def archive(export: Export, *, key: ECKey) -> AsyncIterator[bytes]:
    """A ZIP: `index.html`, for each service JSON, its schema, CSV and files, and last a manifest signed by `key`.

    Raises KeyDestroyed, KeyringUnavailable.
    """
    tables = await survey(export)
    written = _Written()
    # Level 6 takes a third of the time of 9, for a hundredth of the size.
    files = ZipFile(written, "w", ZIP_DEFLATED, compresslevel=6)
    async for name, content in _members(export, tables, key):
        file = ZipInfo(name, export.made_at.timetuple()[:6])
        file.compress_type, file.external_attr = ZIP_DEFLATED, _MODE << 16
        with files.open(file, "w", force_zip64=True) as member:
            async for piece in content:
                await _write(member, piece)
                yield written.taken()
    files.close()
    yield written.taken()


async def _write(member: IO[bytes], piece: bytes) -> None:
    if len(piece) < _WRITTEN_AT_ONCE:
        member.write(piece)
    else:
        await asyncio.to_thread(member.write, piece)


class _Written(RawIOBase):
    """A file that is written from beginning to end and read meanwhile: what was taken is kept no longer."""

    def __init__(self) -> None:
        super().__init__()
        self._content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: Any, /) -> int:
        self._content += content
        return len(content)

    def taken(self) -> bytes:
        content = bytes(self._content)
        self._content.clear()
        return content


async def _members(export: Export, tables: Tables, key: ECKey) -> AsyncIterator[_Content]:
    listed: list[dict[str, Any]] = []
    async for name, content in _contents(export, tables):
        yield name, _listed(name, content, listed)
    manifest = _manifest(export, listed)
    yield MANIFEST, _once(manifest)
    yield SIGNATURE, _once(detached(manifest, key).encode())


async def _contents(export: Export, tables: Tables) -> AsyncIterator[_Content]:
    yield "index.html", page.page(export, tables)
    if export.is_portable:
        yield "portable.jsonld", documents.linked_data(export, tables)
    for service, by_name in tables.items():
        yield f"{service}.json", documents.records(export, service)
        yield f"{service}.schema.json", _once(documents.schema(export, service))
        for name, table in by_name.items():
            for path, content in spreadsheet.sheets(export, service, name, table):
                yield path, content
            async for file in export.files(service, name, table.chunks) if table.files else _none():
                yield file.path, _once(file.content)


async def _none() -> AsyncIterator[Any]:
    for one in ():
        yield one


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _listed(
    name: str, content: AsyncIterable[bytes], listed: list[dict[str, Any]]
) -> AsyncIterator[bytes]:
    """The content in larger pieces, and afterwards what it was."""
    digest, size = hashlib.sha256(), 0
    async for piece in _gathered(content):
        digest.update(piece)
        size += len(piece)
        yield piece
    listed.append({"name": name, "size": size, "sha256": digest.hexdigest()})


async def _gathered(content: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    gathered = bytearray()
    async for piece in content:
        gathered += piece
        if len(gathered) >= _WRITTEN_AT_ONCE:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


def _manifest(export: Export, listed: Iterable[dict[str, Any]]) -> bytes:
    manifest = {
        "request": str(export.request_id),
        "store": str(export.store_id),
        "right": export.right,
        "opened_at": export.opened_at,
        "made_at": export.made_at,
        "services": {name: dict(counts) for name, counts in export.counts.items()},
        "files": list(listed),
    }
    return orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
