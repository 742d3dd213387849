"""Who is one person: the desk joins two subjects, or says that one is somebody else after all."""

from fastapi import APIRouter, Request, Response

from libs.common.auth import PrivacyOfficer, StoreId
from libs.common.http import OpenVault, Session, refusals
from libs.common.idempotency import IdempotencyKey, once
from libs.common.personal.keys import KeyringClient
from services.privacy.api.means import Now, expected
from services.privacy.desk_schemas import MergeView, NewMerge, NewSeparation
from services.privacy.endings import keyring_of
from services.privacy.service import merging

router = APIRouter(tags=["privacy desk"])


def _keyring(request: Request) -> KeyringClient:
    return keyring_of(request.app.state.settings, request.app.state.http)


@router.post(
    "/stores/{store_id}/merges",
    status_code=201,
    response_model=MergeView,
    responses={
        200: {"model": MergeView, "description": "They were one person already, or this is a preview."},
        **refusals(401, 403, 404, 409),
    },
)
async def merge(
    *,
    request: Request,
    store_id: StoreId,
    officer: PrivacyOfficer,
    wanted: NewMerge,
    vault: OpenVault,
    session: Session,
    at: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Two subjects are one person: every request that is open goes on over both, and every later one is about both.

    With `preview` nothing changes: look at what each has before. A merge can be taken back by a separation; what was
    exported or erased meanwhile cannot.
    """
    both = await merging.found(vault, _keyring(request), wanted.subjects, store_id=store_id)
    is_new = False

    async def make() -> tuple[MergeView, None]:
        nonlocal is_new
        if wanted.preview:
            return await merging.looked_at(session, store_id, both), None
        merged, is_new = await merging.merge(session, store_id, both, now=at, expected=expected(request))
        return merged, None

    return await once(
        session,
        request,
        key,
        store_id=store_id,
        caller=str(officer.account_id),
        make=make,
        status=lambda: 201 if is_new else 200,
    )


@router.post("/stores/{store_id}/separations", status_code=204, responses=refusals(401, 403, 404, 409))
async def separate(
    *,
    request: Request,
    store_id: StoreId,
    _: PrivacyOfficer,
    wanted: NewSeparation,
    vault: OpenVault,
    session: Session,
    at: Now,
) -> None:
    """The subject is not the person that it was merged with. What is still to be done is no longer about both; what was
    exported, or is being erased, stays so. A second time changes nothing.
    """
    [subject] = await merging.found(vault, _keyring(request), [wanted.subject], store_id=store_id)
    await merging.separate(session, store_id, subject, now=at, expected=expected(request))
