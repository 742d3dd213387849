"""The privacy desk: who answers for a store previews, decides, extends, asks, assigns and notes."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from libs.common.auth import PrivacyOfficer, StoreId
from libs.common.http import (
    Cursor,
    IfMatch,
    Limit,
    OpenVault,
    Page,
    PlatformSession,
    Session,
    refusals,
    set_etag,
)
from libs.common.idempotency import IdempotencyKey, once
from services.privacy.api.means import (
    Answering,
    Now,
    PersonOrAnswering,
    PlatformOfficer,
    RequestId,
    expected,
    own,
)
from services.privacy.api.openings import opened_once
from services.privacy.desk_schemas import (
    Assignment,
    Escalated,
    Explanation,
    Figures,
    Language,
    NewDecision,
    NewExtension,
    NewText,
    NoteMade,
    NoteView,
    Preview,
    ProposalView,
)
from services.privacy.domain.notes import About
from services.privacy.evidence.figures import as_csv, yearly
from services.privacy.evidence.schemas import YearlyFigures
from services.privacy.schemas import RequestDetail, RequestSummary
from services.privacy.service import deciding, noting, opening, previewing, reading, surveying
from services.privacy.service.noting import Note

router = APIRouter(tags=["privacy desk"])

Words = Annotated[Language, Query(description="Of the explanations.")]
_CHANGES = refusals(401, 403, 404, 409, 412, 428)


# --- The preview -----------------------------------------------------------------------------------------


@router.get(
    "/stores/{store_id}/requests/{request_id}/preview",
    response_model=Preview,
    responses=refusals(401, 403, 404),
)
async def get_preview(
    store_id: StoreId, request_id: RequestId, _: Answering, session: Session, language: Words = "en"
) -> Preview:
    """What everybody holds, what would go, what must stay and why, and who outside will be told: counts and
    categories, never values.
    """
    return await previewing.preview(session, store_id=store_id, request_id=request_id, language=language)


@router.post(
    "/stores/{store_id}/requests/{request_id}/preview",
    status_code=202,
    response_model=Preview,
    responses=refusals(401, 403, 404, 409),
)
async def preview_again(
    request: Request,
    store_id: StoreId,
    request_id: RequestId,
    _: Answering,
    session: Session,
    language: Words = "en",
) -> Preview:
    """Ask everybody anew what they hold."""
    await deciding.preview_again(
        session, store_id=store_id, request_id=request_id, expected=expected(request)
    )
    return await previewing.preview(session, store_id=store_id, request_id=request_id, language=language)


@router.get(
    "/stores/{store_id}/requests/{request_id}/proposal",
    response_model=ProposalView,
    responses=refusals(401, 403, 404, 410),
)
async def get_proposal(
    request: Request, store_id: StoreId, request_id: RequestId, _: Answering, vault: OpenVault
) -> ProposalView:
    """What a person asks to have corrected, with the values: whoever decides must see them."""
    database = request.app.state.database
    return await noting.proposal(database, vault, store_id=store_id, request_id=request_id)


@router.get(
    "/stores/{store_id}/requests/{request_id}/explanation",
    response_model=Explanation,
    responses=refusals(401, 403, 404),
)
async def get_explanation(
    store_id: StoreId,
    request_id: RequestId,
    caller: PersonOrAnswering,
    session: Session,
    language: Words = "en",
) -> Explanation:
    """The answer to a request for an explanation, once it is there."""
    return await previewing.explanation(
        session, store_id=store_id, request_id=request_id, of=own(caller), language=language
    )


# --- Deciding --------------------------------------------------------------------------------------------


@router.post(
    "/stores/{store_id}/requests/{request_id}/decision", response_model=RequestDetail, responses=_CHANGES
)
async def decide(
    *,
    request: Request,
    store_id: StoreId,
    request_id: RequestId,
    officer: Answering,
    wanted: NewDecision,
    vault: OpenVault,
    session: Session,
    at: Now,
    if_match: IfMatch = None,
    key: IdempotencyKey = None,
) -> Response:
    """Carry a request out, or refuse it on a ground of the law. The explanation goes to the person, with the article
    and their right to complain.
    """
    note = await _note(request, vault, store_id, request_id, wanted.explanation)

    async def make() -> tuple[RequestDetail, None]:
        if wanted.refuse is not None and note is not None:
            await deciding.refuse(
                session, note, wanted.refuse, if_match=if_match, by=officer.account_id, now=at
            )
        else:
            await deciding.approve(
                session,
                store_id=store_id,
                request_id=request_id,
                if_match=if_match,
                by=officer.account_id,
                now=at,
                expected=expected(request),
            )
        detail, _ = await reading.get_request(
            session, store_id=store_id, request_id=request_id, of=None, now=at
        )
        return detail, None

    caller = str(officer.account_id)
    return await once(session, request, key, store_id=store_id, caller=caller, make=make, status=200)


async def _note(
    request: Request, vault: OpenVault, store_id: UUID, request_id: UUID, text: str | None
) -> Note | None:
    if text is None:
        return None
    database = request.app.state.database
    return await noting.sealed(database, vault, store_id=store_id, request_id=request_id, text=text)


@router.post(
    "/stores/{store_id}/requests/{request_id}/extension", response_model=RequestDetail, responses=_CHANGES
)
async def extend(
    *,
    store_id: StoreId,
    request_id: RequestId,
    _: Answering,
    wanted: NewExtension,
    session: Session,
    at: Now,
    response: Response,
    if_match: IfMatch = None,
) -> RequestDetail:
    """Take the further time that the law allows once, while the first lasts: two months, or 45 days. The person is
    told why.
    """
    await deciding.extend(
        session, store_id=store_id, request_id=request_id, why=wanted.reason, if_match=if_match, now=at
    )
    return await _changed(session, store_id, request_id, at, response)


@router.post(
    "/stores/{store_id}/requests/{request_id}/question", response_model=RequestDetail, responses=_CHANGES
)
async def ask(
    *,
    request: Request,
    store_id: StoreId,
    request_id: RequestId,
    officer: Answering,
    wanted: NewText,
    vault: OpenVault,
    session: Session,
    at: Now,
    response: Response,
    if_match: IfMatch = None,
) -> RequestDetail:
    """Ask the person what is needed to answer them. The clock stands still until they have answered, but not
    California's.
    """
    database = request.app.state.database
    note = await noting.sealed(database, vault, store_id=store_id, request_id=request_id, text=wanted.text)
    await deciding.ask(session, note, if_match=if_match, by=officer.account_id, now=at)
    return await _changed(session, store_id, request_id, at, response)


@router.put(
    "/stores/{store_id}/requests/{request_id}/assignment", response_model=RequestDetail, responses=_CHANGES
)
async def assign(
    *,
    store_id: StoreId,
    request_id: RequestId,
    _: Answering,
    wanted: Assignment,
    session: Session,
    at: Now,
    response: Response,
    if_match: IfMatch = None,
) -> RequestDetail:
    """Say whose case it is."""
    await deciding.assign(
        session, store_id=store_id, request_id=request_id, assignee=wanted.account_id, if_match=if_match
    )
    return await _changed(session, store_id, request_id, at, response)


async def _changed(
    session: Session, store_id: UUID, request_id: UUID, at: Now, response: Response
) -> RequestDetail:
    await session.flush()
    detail, version = await reading.get_request(
        session, store_id=store_id, request_id=request_id, of=None, now=at
    )
    set_etag(response, version)
    return detail


@router.post(
    "/stores/{store_id}/requests/{request_id}/lifting",
    status_code=201,
    response_model=RequestSummary,
    responses={
        200: {"model": RequestSummary, "description": "A lifting is under way already: this is it."},
        **refusals(401, 403, 404, 409, 410),
    },
)
async def lift(
    *,
    request: Request,
    store_id: StoreId,
    request_id: RequestId,
    officer: Answering,
    vault: OpenVault,
    session: Session,
    at: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Lift a restriction that was carried out: the person is told first, and it ends some days later."""
    database = request.app.state.database
    asking = await deciding.lifting(
        database, vault, store_id=store_id, request_id=request_id, by=officer.account_id, now=at
    )
    return await opened_once(
        session,
        request,
        key,
        store_id=store_id,
        caller=officer,
        opening=lambda: opening.open_request(session, asking, expected=expected(request), now=at),
    )


# --- Notes -----------------------------------------------------------------------------------------------


@router.post(
    "/stores/{store_id}/requests/{request_id}/notes",
    status_code=201,
    response_model=NoteMade,
    responses=refusals(401, 403, 404, 409),
)
async def make_note(
    *,
    request: Request,
    store_id: StoreId,
    request_id: RequestId,
    officer: Answering,
    wanted: NewText,
    vault: OpenVault,
    session: Session,
    at: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Write something down for whoever answers."""
    database = request.app.state.database
    note = await noting.sealed(database, vault, store_id=store_id, request_id=request_id, text=wanted.text)

    async def make() -> tuple[BaseModel, None]:
        noting.keep(session, note, About.NOTE, author=officer.account_id, now=at)
        return NoteMade(id=note.id), None

    caller = str(officer.account_id)
    return await once(session, request, key, store_id=store_id, caller=caller, make=make)


@router.get(
    "/stores/{store_id}/requests/{request_id}/notes",
    response_model=Page[NoteView],
    responses=refusals(401, 403, 404),
)
async def list_notes(
    *,
    request: Request,
    store_id: StoreId,
    request_id: RequestId,
    _: Answering,
    vault: OpenVault,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Page[NoteView]:
    """What was written about a request, oldest first: notes, evidence, questions and answers, reasons."""
    database = request.app.state.database
    return await noting.opened(
        database, vault, store_id=store_id, request_id=request_id, cursor=cursor, limit=limit
    )


# --- Over many -------------------------------------------------------------------------------------------


Year = Annotated[int, Query(ge=2000, le=2200, description="A calendar year where the store is.")]


@router.get(
    "/stores/{store_id}/figures",
    response_model=Figures | YearlyFigures,
    responses=refusals(401, 403, 404),
)
async def get_figures(
    store_id: StoreId, _: PrivacyOfficer, session: Session, at: Now, year: Year | None = None
) -> Figures | YearlyFigures:
    """How many requests are open and how long answers take; of a year, how they ended, from the evidence log. No
    personal data.
    """
    if year is None:
        return await surveying.figures(session, store_id=store_id, now=at)
    return await yearly(session, store_id=store_id, year=year, now=at)


@router.get(
    "/stores/{store_id}/figures.csv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}}, **refusals(401, 403, 404)},
)
async def get_figures_as_csv(
    store_id: StoreId, _: PrivacyOfficer, session: Session, at: Now, year: Year
) -> Response:
    """The figures of a year, a line for each right."""
    found = await yearly(session, store_id=store_id, year=year, now=at)
    headers = {"Content-Disposition": f'attachment; filename="requests-{year}.csv"'}
    return Response(as_csv(found), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/escalations", response_model=Page[Escalated], responses=refusals(401, 403))
async def list_escalations(
    _: PlatformOfficer, session: PlatformSession, at: Now, cursor: Cursor = None, limit: Limit = 20
) -> Page[Escalated]:
    """For the platform: open requests of all stores that it may answer, those that wait longest first."""
    return await surveying.escalations(session, now=at, cursor=cursor, limit=limit)
