"""Evidence: the heads of a store's log and its proofs for anybody, certificates for whose request it was."""

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from libs.common import throttle
from libs.common.auth import PLATFORM_STORE, PrivacyOfficer, StoreId
from libs.common.db import Database
from libs.common.errors import Unprocessable
from libs.common.http import ClientAddress, Limit, OpenVault, Session, refusals
from libs.common.stores import known_store
from libs.common.throttle import Bound
from services.privacy.api.means import Now, PersonOrAnswering, RequestId, own
from services.privacy.domain.problems import NotInLog
from services.privacy.evidence import certificates, page, reading
from services.privacy.evidence.placing import key_of
from services.privacy.evidence.schemas import (
    CertificateDocument,
    CertificateWanted,
    ConsistencyProof,
    Hash,
    HeadList,
    HeadView,
    InclusionProof,
    LeafList,
)
from services.privacy.schemas import LinkToken
from services.privacy.service import reading as requests
from services.privacy.service.replying import followed
from services.privacy.settings import Settings
from vitrine import merkle

router = APIRouter(tags=["evidence"])

PDF, LINES = "application/pdf", "application/jsonl"
Size = Annotated[int, Query(ge=0, lt=2**63, description="Of a tree, in entries.")]
Language = Annotated[str, Query(pattern="^(en|fr)$")]


class SizesDoNotFit(Unprocessable):
    """422: a proof leads from a smaller tree to a larger one."""

    slug = "sizes-do-not-fit"
    title = "The second size is smaller than the first"


# --- For anybody -----------------------------------------------------------------------------------------


async def _counted(
    request: Request, store_id: StoreId, vault: OpenVault, address: ClientAddress, at: Now
) -> None:
    """A proof is cheap and not free: who asks too often waits. Raises NotFound, TooManyAttempts."""
    database: Database = request.app.state.database
    if store_id != PLATFORM_STORE:
        async with database.session(store_id) as session:
            await known_store(session, store_id)
    key = await vault.blind_index(store_id, "proof-address", throttle.network(address))
    bound = Bound(key, request.app.state.settings.proofs_per_address, throttle.HOUR)
    await throttle.count_or_refuse(database, store_id, [bound], at)


_PUBLIC: Any = {"dependencies": [Depends(_counted)], "responses": refusals(404, 410, 429)}


@router.get("/stores/{store_id}/evidence/head", **_PUBLIC)
async def read_head(store_id: StoreId, session: Session, response: Response) -> HeadView:
    """The newest head of a store's log. Keep it: what it covers can never be changed unnoticed from then on."""
    response.headers["Cache-Control"] = "no-cache"
    head = await reading.latest_head(session, store_id)
    if head is None:
        return HeadView(size=0, root=merkle.EMPTY.hex(), signed_at=None, head=None)
    return _view(head)


@router.get("/stores/{store_id}/evidence/heads", **_PUBLIC)
async def list_heads(
    store_id: StoreId, session: Session, below: Size = 2**63 - 1, limit: Limit = 20
) -> HeadList:
    """Published heads of trees smaller than `below`, the largest first."""
    found = await reading.heads_below(session, store_id, below, limit=limit)
    return HeadList(items=[_view(one) for one in found])


def _view(head: Any) -> HeadView:
    return HeadView(size=head.size, root=head.root.hex(), signed_at=head.signed_at, head=head.signature)


@router.get("/stores/{store_id}/evidence/leaves", **_PUBLIC)
async def list_leaves(store_id: StoreId, session: Session, first: Size = 0, limit: Limit = 100) -> LeafList:
    """The hashes of entries, from which anybody can compute every head again. What they say is not among it."""
    hashes = await reading.leaves(session, store_id, first, limit=limit)
    return LeafList(first=first, items=[one.hex() for one in hashes])


@router.get("/stores/{store_id}/evidence/inclusion", **_PUBLIC)
async def prove_inclusion(
    store_id: StoreId,
    session: Session,
    leaf: Annotated[Hash, Query(description="The hash of the entry.")],
    size: Annotated[
        Size | None, Query(ge=1, lt=2**63, description="Of a published head; the newest.")
    ] = None,
) -> InclusionProof:
    """The proof that an entry is in the log."""
    head = await _head(session, store_id, size)
    index, path = await reading.inclusion(session, store_id, bytes.fromhex(leaf), head.size)
    return InclusionProof(index=index, size=head.size, path=[one.hex() for one in path], head=head.signature)


async def _head(session: Session, store_id: UUID, size: int | None) -> Any:
    if size is not None:
        return await reading.head_of(session, store_id, size)
    head = await reading.latest_head(session, store_id)
    if head is None:
        raise NotInLog(reason="no-such-leaf")
    return head


@router.get("/stores/{store_id}/evidence/consistency", **_PUBLIC)
async def prove_consistency(
    store_id: StoreId, session: Session, first: Size, second: Size
) -> ConsistencyProof:
    """The proof that the log of the second size begins with that of the first; both have a published head."""
    if second < first:
        raise SizesDoNotFit
    for size in {first, second} - {0}:
        await reading.head_of(session, store_id, size)
    path = await reading.consistency(session, store_id, first, second)
    return ConsistencyProof(first=first, second=second, path=[one.hex() for one in path])


# --- For who answers -------------------------------------------------------------------------------------


@router.get(
    "/stores/{store_id}/evidence/log",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {LINES: {}},
            "description": "A line of JSON for the log, for each entry and for each head.",
        },
        **refusals(401, 403, 404),
    },
)
async def read_log(request: Request, store_id: StoreId, _: PrivacyOfficer) -> StreamingResponse:
    """The whole log, for an auditor: `vitrine verify --log` checks it. It holds ids, fixed words, counts, times, hashes
    and signatures, and no personal data.
    """
    headers = {"Content-Disposition": f'attachment; filename="evidence-{store_id}.jsonl"'}
    return StreamingResponse(_lines(request.app.state.database, store_id), media_type=LINES, headers=headers)


async def _lines(database: Database, store_id: UUID) -> AsyncIterator[bytes]:
    async with database.session(store_id) as session:
        keys = await certificates.published_keys(session)
    yield _line({"log": str(store_id), "keys": keys})
    async for line in reading.whole(database, store_id):
        yield _line(line)


def _line(said: Any) -> bytes:
    return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)


# --- Certificates ----------------------------------------------------------------------------------------


@router.get("/stores/{store_id}/requests/{request_id}/certificate", responses=refusals(401, 403, 404))
async def read_certificate(
    store_id: StoreId, request_id: RequestId, caller: PersonOrAnswering, session: Session
) -> CertificateDocument:
    """What is certified about a request that has ended, with its proofs. `vitrine verify` checks it offline."""
    await requests.seen_by(session, store_id=store_id, request_id=request_id, of=own(caller))
    found = await certificates.document(session, store_id=store_id, request_id=request_id)
    return CertificateDocument.model_validate(found)


@router.get(
    "/stores/{store_id}/requests/{request_id}/certificate.pdf",
    response_class=Response,
    responses={
        200: {"content": {PDF: {}}, "description": "A page to read, which carries the certificate."},
        **refusals(401, 403, 404),
    },
)
async def read_certificate_page(
    *,
    request: Request,
    store_id: StoreId,
    request_id: RequestId,
    caller: PersonOrAnswering,
    session: Session,
    language: Language = "en",
) -> Response:
    """The same as a page to read and to keep: a PDF/A-3 with the certificate in it, signed as a whole."""
    await requests.seen_by(session, store_id=store_id, request_id=request_id, of=own(caller))
    found = await certificates.document(session, store_id=store_id, request_id=request_id)
    return await _page(request, found, language)


@router.post("/status/certificate", responses=refusals(404))
async def follow_certificate(request: Request, response: Response, sent: LinkToken) -> CertificateDocument:
    """The certificate of the request whose link came by mail."""
    response.headers["Cache-Control"] = "no-store"
    return CertificateDocument.model_validate(await _followed(request, sent))


@router.post(
    "/status/certificate.pdf",
    response_class=Response,
    responses={
        200: {"content": {PDF: {}}, "description": "A page to read, which carries the certificate."},
        **refusals(404),
    },
)
async def follow_certificate_page(request: Request, sent: CertificateWanted) -> Response:
    """The same as a page to read and to keep."""
    return await _page(request, await _followed(request, sent), sent.language)


async def _followed(request: Request, sent: LinkToken) -> dict[str, Any]:
    database: Database = request.app.state.database
    found = await followed(database, sent.token.get_secret_value())
    async with database.session(found.store_id) as session:
        return await certificates.document(session, store_id=found.store_id, request_id=found.id)


async def _page(request: Request, document: dict[str, Any], language: str) -> Response:
    settings: Settings = request.app.state.settings
    url = f"{settings.public_url}/privacy/v1/keys.json"
    content = await page.made(document, language=language, url=url, key=key_of(settings))
    name = f"certificate-{document['certificate']['request']['id']}.pdf"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(content, media_type=PDF, headers=headers)
