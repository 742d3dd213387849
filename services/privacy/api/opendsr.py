"""OpenDSR: a store's own privacy tool asks us, and processors outside call us back.

Under the paths of both names that the specification has had. What is answered is signed over its raw bytes.
"""

import base64
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from libs.common.auth import StoreId
from libs.common.errors import NotFound, Unauthenticated
from libs.common.http import OpenVault, Session, refusals
from libs.common.stores import known_store
from services.privacy import downloads
from services.privacy.api.means import Now, expected
from services.privacy.opendsr import controllers, following, hearing, processor
from services.privacy.opendsr.certificates import certificates_of
from services.privacy.opendsr.controllers import Controller
from services.privacy.opendsr.hearing import Call
from services.privacy.opendsr.models import OpenDsrRequest
from services.privacy.opendsr.places import callbacks_of, certificate_of, former_callbacks_of, requests_of
from services.privacy.opendsr.signatures import DOMAIN, SIGNATURE, Signer, signer_of
from services.privacy.opendsr.wire import (
    VERSION,
    Accepted,
    Callback,
    Cancelled,
    Discovery,
    NewRequest,
    NewRequestV1,
    Results,
    Status,
    read,
    written,
)
from services.privacy.recipients.deliveries import outgoing_of
from services.privacy.settings import Settings

router = APIRouter(tags=["OpenDSR"])

_ZIP = "application/zip"
_bearer = HTTPBearer(auto_error=False, scheme_name="OpenDsrKey", description="The key of a registered tool.")


async def _controller(
    request: Request,
    store_id: StoreId,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    at: Now,
) -> Controller:
    if credentials is None:
        raise Unauthenticated
    return await controllers.of_key(
        request.app.state.database, credentials.credentials, store_id=store_id, now=at
    )


Tool = Annotated[Controller, Depends(_controller)]
"""A tool of the path's store. To one of another store there is nothing."""


async def _signer(request: Request) -> Signer:
    return signer_of(request.app.state.settings)


Signing = Annotated[Signer, Depends(_signer)]
SubjectRequest = Annotated[UUID, Path(description="`subject_request_id`, as the tool made it.")]


def _signed(message: BaseModel, signer: Signer, status: int = 200) -> Response:
    body = written(message)
    return Response(
        body,
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store", **signer.headers(body)},
    )


def _takes(model: type[BaseModel]) -> dict[str, Any]:
    """The body of a route that reads it raw: its bytes are what is signed, and given back."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(model)}}}}


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    defined = schema.pop("$defs", {})

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return filled(defined[part["$ref"].rpartition("/")[2]])
            return {name: filled(value) for name, value in part.items()}
        return [filled(one) for one in part] if isinstance(part, list) else part

    return filled(schema)


def _answers(model: type[BaseModel], status: int, *more: int) -> dict[int | str, dict[str, Any]]:
    headers = {name: {"schema": {"type": "string"}} for name in (DOMAIN[0], SIGNATURE[0])}
    return {status: {"model": model, "headers": headers}, **refusals(*more)}


# --- What we are -----------------------------------------------------------------------------------------


@router.get(
    "/certificate.pem",
    response_class=Response,
    responses={200: {"content": {"application/x-pem-file": {}}}, **refusals(404)},
)
async def read_signing_certificate(signer: Signing) -> Response:
    """What our signatures are checked with, and the certificates between it and its authority."""
    return Response(
        signer.certificate,
        media_type="application/x-pem-file",
        headers={"Cache-Control": "public, max-age=300"},
    )


async def _discovered(request: Request, store_id: UUID, session: Session, signer: Signer) -> Response:
    await known_store(session, store_id)
    return _signed(processor.discovery(certificate_of(request.app.state.settings.public_url)), signer)


@router.get("/{store_id}/v1/discovery", response_model=Discovery, responses=_answers(Discovery, 200, 404))
async def discover(request: Request, store_id: StoreId, session: Session, signer: Signing) -> Response:
    """What can be asked here, and whom it can be asked about."""
    return await _discovered(request, store_id, session, signer)


@router.get("/{store_id}/discovery", response_model=Discovery, responses=_answers(Discovery, 200, 404))
async def discover_as_before(
    request: Request, store_id: StoreId, session: Session, signer: Signing
) -> Response:
    """As `v1/discovery`, where OpenGDPR had it."""
    return await _discovered(request, store_id, session, signer)


# --- What is asked ---------------------------------------------------------------------------------------


async def _asked(
    *,
    request: Request,
    controller: Controller,
    model: type[NewRequest],
    vault: OpenVault,
    signer: Signer,
    at: Now,
) -> Response:
    body = await request.body()
    wanted = read(model, body)
    settings, database = request.app.state.settings, request.app.state.database
    processor.check(wanted, controller, domain=signer.domain, plain=settings.outgoing_http, now=at)
    named = await processor.named_in(vault, wanted, store_id=controller.store_id)
    async with database.session(controller.store_id) as session:
        found = await processor.known(session, controller, wanted.id)
    if found is not None:
        return _accepted(processor.same(found, wanted, named), body, signer)
    prepared = await processor.prepared(database, vault, wanted, named, store_id=controller.store_id)
    # What was raised here leaves nothing behind, and the answer leaves once it is durable.
    async with database.session(controller.store_id) as session:
        made = await processor.take(session, controller, prepared, expected=expected(request), now=at)
    return _accepted(made, body, signer)


def _accepted(made: OpenDsrRequest, body: bytes, signer: Signer) -> Response:
    accepted = Accepted(
        controller_id=str(made.controller_id),
        subject_request_id=str(made.subject_request_id),
        expected_completion_time=made.expected_at,
        received_time=made.received_at,
        encoded_request=base64.b64encode(body).decode(),
    )
    return _signed(accepted, signer, 201)


@router.post(
    "/{store_id}/v1/requests",
    status_code=201,
    response_model=Accepted,
    responses=_answers(Accepted, 201, 401, 404),
    openapi_extra=_takes(NewRequest),
)
async def ask_of_tool(request: Request, tool: Tool, vault: OpenVault, signer: Signing, at: Now) -> Response:
    """Ask for what a person asked the store for. The same again is answered the same, and done once."""
    return await _asked(request=request, controller=tool, model=NewRequest, vault=vault, signer=signer, at=at)


@router.post(
    "/{store_id}/opengdpr_requests",
    status_code=201,
    response_model=Accepted,
    responses=_answers(Accepted, 201, 401, 404),
    openapi_extra=_takes(NewRequestV1),
)
async def ask_of_tool_as_before(
    request: Request, tool: Tool, vault: OpenVault, signer: Signing, at: Now
) -> Response:
    """As `v1/requests`, where OpenGDPR had it: without a regulation it is the GDPR."""
    return await _asked(
        request=request, controller=tool, model=NewRequestV1, vault=vault, signer=signer, at=at
    )


# --- What becomes of it ----------------------------------------------------------------------------------


async def _shown(
    request: Request, tool: Controller, subject_request_id: UUID, *, session: Session, signer: Signer, at: Now
) -> Response:
    found = await processor.one(session, tool, subject_request_id)
    base = requests_of(request.app.state.settings.public_url, tool.store_id)
    return _signed(await following.status_of(session, found, base=base, domain=signer.domain, now=at), signer)


@router.get(
    "/{store_id}/v1/requests/{subject_request_id}",
    response_model=Status,
    responses=_answers(Status, 200, 401, 404),
)
async def read_request_of_tool(
    *,
    request: Request,
    tool: Tool,
    subject_request_id: SubjectRequest,
    session: Session,
    signer: Signing,
    at: Now,
) -> Response:
    """Where a request is, and where its results are, for as long as they are there."""
    return await _shown(request, tool, subject_request_id, session=session, signer=signer, at=at)


@router.get(
    "/{store_id}/opengdpr_requests/{subject_request_id}",
    response_model=Status,
    responses=_answers(Status, 200, 401, 404),
)
async def read_request_of_tool_as_before(
    *,
    request: Request,
    tool: Tool,
    subject_request_id: SubjectRequest,
    session: Session,
    signer: Signing,
    at: Now,
) -> Response:
    """As `v1/requests/{subject_request_id}`, where OpenGDPR had it."""
    return await _shown(request, tool, subject_request_id, session=session, signer=signer, at=at)


async def _cancelled(
    tool: Controller, subject_request_id: UUID, session: Session, signer: Signer, at: Now
) -> Response:
    found = await processor.one(session, tool, subject_request_id)
    await processor.cancel(session, found, now=at)
    cancelled = Cancelled(
        controller_id=str(tool.id),
        subject_request_id=str(subject_request_id),
        received_time=at,
        api_version=VERSION,
    )
    return _signed(cancelled, signer, 202)


@router.delete(
    "/{store_id}/v1/requests/{subject_request_id}",
    status_code=202,
    response_model=Cancelled,
    responses=_answers(Cancelled, 202, 401, 404),
)
async def cancel_request_of_tool(
    tool: Tool, subject_request_id: SubjectRequest, session: Session, signer: Signing, at: Now
) -> Response:
    """Take a request back while it is pending."""
    return await _cancelled(tool, subject_request_id, session, signer, at)


@router.delete(
    "/{store_id}/opengdpr_requests/{subject_request_id}",
    status_code=202,
    response_model=Cancelled,
    responses=_answers(Cancelled, 202, 401, 404),
)
async def cancel_request_of_tool_as_before(
    tool: Tool, subject_request_id: SubjectRequest, session: Session, signer: Signing, at: Now
) -> Response:
    """As `v1/requests/{subject_request_id}`, where OpenGDPR had it."""
    return await _cancelled(tool, subject_request_id, session, signer, at)


# --- Its results -----------------------------------------------------------------------------------------


@router.get("/{store_id}/v1/requests/{subject_request_id}/results", responses=refusals(401, 404))
async def list_results(
    request: Request, tool: Tool, subject_request_id: SubjectRequest, session: Session, at: Now
) -> Results:
    """The archives of a request, one for each person that its identities named here."""
    found = await processor.one(session, tool, subject_request_id)
    results = await following.results_of(session, found, now=at)
    if not results:
        raise NotFound
    base = f"{requests_of(request.app.state.settings.public_url, tool.store_id)}/{subject_request_id}/results"
    return Results(
        results=[f"{base}/{number}" for number, _ in enumerate(results, 1)],
        results_count=len(results),
        expires_at=min(one.expires_at for one in results),
    )


@router.get(
    "/{store_id}/v1/requests/{subject_request_id}/results/{number}",
    response_class=StreamingResponse,
    responses={200: {"content": {_ZIP: {}}, "description": "The archive."}, **refusals(401, 404)},
)
async def download_result(
    *,
    request: Request,
    tool: Tool,
    subject_request_id: SubjectRequest,
    number: Annotated[int, Path(ge=1, le=100, description="Of the archive.")],
    vault: OpenVault,
    at: Now,
) -> StreamingResponse:
    """Fetch an archive with the tool's key, for a week."""
    database = request.app.state.database
    async with database.session(tool.store_id) as session:
        found = await processor.one(session, tool, subject_request_id)
        results = await following.results_of(session, found, now=at)
    if number > len(results):
        raise NotFound
    fetching = await downloads.whole(database, vault, results[number - 1].request_id, store_id=tool.store_id)
    return StreamingResponse(
        downloads.content(database, vault, fetching),
        media_type=_ZIP,
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="export-{fetching.request_id}.zip"',
            "Content-Length": str(fetching.size),
            "ETag": fetching.etag,
            "X-Content-Type-Options": "nosniff",
        },
    )


# --- What processors say ---------------------------------------------------------------------------------


async def _heard(request: Request, at: Now) -> None:
    settings: Settings = request.app.state.settings
    await hearing.hear(
        request.app.state.database,
        outgoing_of(settings),
        certificates_of(settings),
        Call(request.headers, await request.body()),
        addresses=frozenset({callbacks_of(settings.public_url), former_callbacks_of(settings.public_url)}),
        now=at,
    )


@router.post("/callbacks", status_code=204, responses=refusals(403, 404, 409), openapi_extra=_takes(Callback))
async def hear_callback(request: Request, at: Now) -> None:
    """For a processor that was asked something: say where it is. Signed with the key of its certificate."""
    await _heard(request, at)


@router.post(
    "/opengdpr_callbacks", status_code=204, responses=refusals(403, 404, 409), openapi_extra=_takes(Callback)
)
async def hear_callback_as_before(request: Request, at: Now) -> None:
    """As `callbacks`, where OpenGDPR had it."""
    await _heard(request, at)
