"""Sign-in, refresh, sign-out."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Path, Response

from libs.common.auth import Customer, StoreId
from libs.common.http import ClientAddress, Cursor, Limit, Page, Session, cursor_at, refusals
from services.identity.api.means import ThisParts, position
from services.identity.domain import ACCESS_TOKEN_LASTS
from services.identity.schemas import PasswordGrant, SessionOut, TokenAnswer, TokenRequest
from services.identity.service import sessions

router = APIRouter(prefix="/stores/{store_id}", tags=["sessions"])


@router.post("/tokens", responses=refusals(401, 404, 409, 429))
async def create_tokens(
    store_id: StoreId,
    body: Annotated[TokenRequest, Body()],
    parts: ThisParts,
    address: ClientAddress,
    response: Response,
) -> TokenAnswer:
    """Sign in with a password, or exchange a refresh token.

    A refresh token works once. Of two racing exchanges the second answers 409 for ten seconds and the session
    goes on; an older token ends the session. A merchant signs in at the platform's store and names the store to
    work at in `act_at`; the access token is then one of that store's staff.
    """
    response.headers["Cache-Control"] = "no-store"
    if isinstance(body, PasswordGrant):
        tokens = await sessions.sign_in(
            parts,
            store_id=store_id,
            email=body.email,
            password=body.password.get_secret_value(),
            address=address,
        )
    else:
        tokens = await sessions.refresh(
            parts, store_id=store_id, token=body.refresh_token.get_secret_value(), act_at=body.act_at
        )
    return TokenAnswer(
        access_token=tokens.access_token,
        expires_in=int(ACCESS_TOKEN_LASTS.total_seconds()),
        refresh_token=tokens.refresh_token,
    )


@router.get("/sessions", responses=refusals(401, 403, 404))
async def list_sessions(
    caller: Customer, session: Session, parts: ThisParts, cursor: Cursor = None, limit: Limit = 20
) -> Page[SessionOut]:
    """Where the person is signed in, newest first."""
    found = await sessions.sessions_of(
        session, caller=caller, now=parts.clock(), after=position(cursor), limit=limit + 1
    )
    shown = found[:limit]
    return Page(
        items=[
            SessionOut(
                id=one.id,
                started_at=one.started_at,
                refreshed_at=one.rotated_at,
                expires_at=one.expires_at,
                current=one.id == caller.session_id,
            )
            for one in shown
        ],
        next=cursor_at(shown[-1].started_at, shown[-1].id) if len(found) > limit else None,
    )


@router.delete("/sessions/current", status_code=204, responses=refusals(401, 403, 404))
async def sign_out(caller: Customer, session: Session, parts: ThisParts) -> None:
    """Sign out. The access token lives on for its minutes."""
    await sessions.sign_out(session, caller=caller, session_id=caller.session_id, now=parts.clock())


@router.delete("/sessions/{session_id}", status_code=204, responses=refusals(401, 403, 404))
async def end_session(
    caller: Customer, session: Session, parts: ThisParts, session_id: Annotated[UUID, Path()]
) -> None:
    """Sign out somewhere else."""
    await sessions.sign_out(session, caller=caller, session_id=session_id, now=parts.clock())
