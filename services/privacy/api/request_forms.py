"""Requests by anybody: an anonymous form, an agent's, and what somebody of the store wrote down."""

from datetime import datetime
from hashlib import sha256
from time import monotonic
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from libs.common.auth import Caller, Role, StoreId, of_store
from libs.common.http import ClientAddress, OpenVault, refusals
from libs.common.idempotency import IdempotencyKey, once
from libs.common.pace import until_step
from libs.common.personal.errors import SubjectErased
from libs.common.personal.vault import Vault
from services.privacy.api.means import Now, expected
from services.privacy.api.openings import opened_once
from services.privacy.api.uploads import described, form_with
from services.privacy.domain.problems import RightIncomplete
from services.privacy.policies import language_of
from services.privacy.schemas import FormAccepted, RequestForm, RequestOnBehalf, RequestSummary
from services.privacy.service import documents, forms, on_behalf
from services.privacy.service.forms import Agent, Form
from services.privacy.service.on_behalf import Received
from services.privacy.settings import Settings

router = APIRouter(prefix="/stores/{store_id}", tags=["privacy"])

Receiver = Annotated[Caller, Depends(of_store(Role.OWNER, Role.PRIVACY_OFFICER, Role.SUPPORT))]
"""Who opens the store's letters and answers its calls."""
_AUTHORISED = {"text": "form", "file": "authorisation"}


# --- Forms -----------------------------------------------------------------------------------------------


@router.post(
    "/request-forms", status_code=202, response_model=FormAccepted, responses=refusals(404, 409, 429)
)
async def send_form(
    *,
    request: Request,
    store_id: StoreId,
    wanted: RequestForm,
    vault: OpenVault,
    address: ClientAddress,
    at: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Use a right without an account: a mail to the address tells how to go on.

    The answer is the same for everybody, in words and time, whether the address is known, has a request already,
    or was written to too often, when no further mail is sent. An agent is told by mail that the form arrived.
    """
    began = monotonic()
    store = await _admitted(request, store_id, vault=vault, address=address, at=at)
    return await _accepted(
        request, store_id, wanted, vault=vault, store=store, at=at, key=key, authorisation=None, began=began
    )


@router.post(
    "/authorised-request-forms",
    status_code=202,
    response_model=FormAccepted,
    responses=refusals(404, 409, 413, 415, 429),
    openapi_extra=described(**_AUTHORISED),
)
async def send_authorised_form(
    *,
    request: Request,
    store_id: StoreId,
    vault: OpenVault,
    address: ClientAddress,
    at: Now,
    key: IdempotencyKey = None,
) -> Response:
    """An agent's form with the authorisation that the person signed: `form` is that of `request-forms` as JSON,
    `authorisation` a PDF, JPEG or PNG. Somebody of the store looks at it; it is destroyed then.
    """
    began = monotonic()
    store = await _admitted(request, store_id, vault=vault, address=address, at=at)
    said, authorisation = await form_with(request, **_AUTHORISED)
    try:
        wanted = RequestForm.model_validate_json(said)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**one, "loc": ("form", *one["loc"])} for one in faults]) from None
    if wanted.agent is None:
        raise RightIncomplete(reason="agent-needed")
    documents.accepted_type(authorisation)
    return await _accepted(
        request,
        store_id,
        wanted,
        vault=vault,
        store=store,
        at=at,
        key=key,
        authorisation=authorisation,
        began=began,
    )


async def _admitted(
    request: Request, store_id: UUID, *, vault: Vault, address: str, at: datetime
) -> tuple[str, str]:
    """The store's name and language, before anything that was sent is looked at."""
    state = request.app.state
    return await forms.admitted(
        state.database, vault, state.settings, store_id=store_id, address=address, now=at
    )


async def _accepted(
    request: Request,
    store_id: UUID,
    wanted: RequestForm,
    *,
    vault: Vault,
    store: tuple[str, str],
    at: datetime,
    key: str | None,
    authorisation: bytes | None,
    began: float,
) -> Response:
    """Whatever becomes of the form, this leaves at a multiple of the step after it came."""
    settings, database = _settings(request), request.app.state.database
    form, (name, language) = _form(wanted, authorisation), store
    body = authorisation and wanted.model_dump_json().encode() + sha256(authorisation).digest()

    async def attempt() -> Response:
        prepared = await forms.prepared(vault, form, store_id=store_id, store=name, language=language)
        taken = False

        async def make() -> tuple[FormAccepted, None]:
            nonlocal taken
            taken = True
            await forms.take(
                session,
                prepared,
                mails_per_person=settings.mails_per_person,
                expected=expected(request),
                now=at,
            )
            return FormAccepted(), None

        async with database.session(store_id) as session:
            reply = await once(
                session, request, key, store_id=store_id, caller="anybody", make=make, status=202, body=body
            )
            if not taken:
                await forms.discard(session, prepared, at=at)
        return reply

    try:
        reply = await attempt()
    except SubjectErased:
        # An erasure ended the generation after its keys were made: this is a live command and begins the next one.
        reply = await attempt()
    await until_step(began, settings.answer_step)
    return reply


def _form(wanted: RequestForm, authorisation: bytes | None) -> Form:
    agent = wanted.agent and Agent(wanted.agent.name, wanted.agent.email, authorisation)
    return Form(wanted.asked(), wanted.email, wanted.language, wanted.order_number, agent)


def _settings(request: Request) -> Settings:
    return request.app.state.settings


# --- On somebody's behalf --------------------------------------------------------------------------------


@router.post(
    "/requests-on-behalf",
    status_code=201,
    response_model=RequestSummary,
    responses={
        200: {"model": RequestSummary, "description": "A request of this kind is open already: this is it."},
        **refusals(401, 403, 404, 409),
    },
)
async def open_on_behalf(
    *,
    request: Request,
    store_id: StoreId,
    caller: Receiver,
    wanted: RequestOnBehalf,
    vault: OpenVault,
    at: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Open a request for whoever wrote, called or came. For the owner, the privacy officer and support.

    Where the store takes its staff's word for this right, the request goes on; else its person confirms it by mail.
    They are told in any case.
    """
    database = request.app.state.database
    received = Received(
        asked=wanted.asked(),
        email=wanted.email,
        language=wanted.language or await language_of(request.app.state.database, store_id),
        channel=wanted.channel,
        seen=wanted.seen,
        by=caller.account_id,
        received_on=wanted.received_on,
    )
    prepared = await on_behalf.prepared(database, vault, received, store_id=store_id)
    async with database.session(store_id) as session:
        return await opened_once(
            session,
            request,
            key,
            store_id=store_id,
            caller=caller,
            opening=lambda: on_behalf.take(session, prepared, expected=expected(request), now=at),
        )
