"""A request followed without an account. The secret of its link is sent in bodies alone: no log ever sees it."""

from datetime import datetime
from hashlib import sha256

from fastapi import APIRouter, Request, Response
from pydantic import SecretStr

from libs.common.http import OpenVault, refusals
from libs.common.idempotency import IdempotencyKey, once, replayed
from libs.common.personal.errors import SubjectErased
from libs.common.personal.vault import Vault
from services.privacy.api.means import Now, expected
from services.privacy.api.uploads import described, form_with
from services.privacy.domain.problems import StatusGone
from services.privacy.schemas import LinkToken, RequestStatus
from services.privacy.service import documents, following, noting
from services.privacy.service.replying import Followed, followed

router = APIRouter(tags=["privacy"])

_UPLOAD = {"text": "token", "file": "file"}


def _secret(response: Response, token: SecretStr) -> str:
    response.headers["Cache-Control"] = "no-store"
    return token.get_secret_value()


@router.post("/confirmations", responses=refusals(404))
async def confirm(request: Request, response: Response, sent: LinkToken, at: Now) -> RequestStatus:
    """Say that the request whose link arrived by mail is one's own; a second time changes nothing."""
    token = _secret(response, sent.token)
    return await following.confirm(request.app.state.database, token, expected=expected(request), now=at)


@router.post("/status", responses=refusals(404))
async def read_status(
    request: Request, response: Response, sent: LinkToken, vault: OpenVault
) -> RequestStatus:
    """Where the request is, by when it must be answered, what was asked and is waited for, what is kept."""
    database = request.app.state.database
    found = await followed(database, _secret(response, sent.token))
    status = await following.follow(database, sent.token.get_secret_value())
    asked = await noting.questions(database, vault, store_id=found.store_id, request_id=found.id)
    return status.model_copy(update={"questions": asked})


@router.post("/status/withdrawal", responses=refusals(404, 409))
async def withdraw(request: Request, response: Response, sent: LinkToken, at: Now) -> RequestStatus:
    """Take the request back, as long as nothing was done; a second time changes nothing."""
    return await following.withdraw(request.app.state.database, _secret(response, sent.token), now=at)


@router.post(
    "/status/documents",
    status_code=201,
    response_model=RequestStatus,
    responses=refusals(404, 409, 413, 415),
    openapi_extra=described(**_UPLOAD),
)
async def send_document(request: Request, vault: OpenVault, at: Now, key: IdempotencyKey = None) -> Response:
    """Show by a document whose request it is: a PDF, JPEG or PNG of at most 5 MiB, while one is waited for.

    It lies under a key of its own until somebody of the store has looked at it, 30 days at most; then it is destroyed.
    """
    token, content = await form_with(request, **_UPLOAD)
    found = await followed(request.app.state.database, token)
    try:
        reply = await _uploaded(request, found, content, vault=vault, at=at, key=key)
    except SubjectErased:
        raise StatusGone from None
    reply.headers["Cache-Control"] = "no-store"
    return reply


async def _uploaded(
    request: Request, found: Followed, content: bytes, *, vault: Vault, at: datetime, key: str | None
) -> Response:
    database, store_id, caller = request.app.state.database, found.store_id, str(found.id)
    body = sha256(content).digest()
    async with database.session(store_id) as session:
        # The document that was sent before may be the last that was wanted.
        earlier = await replayed(session, request, key, store_id=store_id, caller=caller, body=body)
    if earlier is not None:
        return earlier
    uploaded = await documents.prepared(database, vault, found, content)
    taken = False

    async def make() -> tuple[RequestStatus, None]:
        nonlocal taken
        taken = True
        await documents.take(session, found, uploaded, now=at)
        return await following.status(session, found.id), None

    async with database.session(store_id) as session:
        reply = await once(session, request, key, store_id=store_id, caller=caller, make=make, body=body)
        if not taken:
            await documents.discard(session, found, uploaded, at=at)
    return reply
