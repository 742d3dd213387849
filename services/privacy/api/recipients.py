"""Recipients outside: whom a store gives data to, what is sent to them, and what they say of it."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response

from libs.common.auth import PrivacyOfficer, StoreId
from libs.common.http import (
    Cursor,
    IfMatch,
    Limit,
    Page,
    Session,
    decode_cursor,
    encode_cursor,
    refusals,
    set_etag,
)
from libs.common.idempotency import IdempotencyKey, once
from services.privacy.api.means import Now
from services.privacy.recipients import answering, registry
from services.privacy.recipients.models import Recipient
from services.privacy.recipients.replies import Outcomes
from services.privacy.recipients.schemas import (
    AttemptView,
    DeliveryView,
    NewRecipient,
    RecipientChange,
    RecipientMade,
    RecipientView,
    Rotation,
    SecretMade,
)
from services.privacy.recipients.signing_secrets import OVERLAP
from services.privacy.recipients.words import DeliveryState, RecipientState
from services.privacy.settings import Settings

router = APIRouter(tags=["recipients"])

RecipientId = Annotated[UUID, Path(description="The recipient.")]
DeliveryId = Annotated[UUID, Path(description="The delivery: its webhook-id.")]
_PATH = "/stores/{store_id}/recipients"
_ONE = f"{_PATH}/{{recipient_id}}"
_DELIVERY = f"{_ONE}/deliveries/{{delivery_id}}"


def _settings(request: Request) -> Settings:
    return request.app.state.settings


def _viewed(recipient: Recipient, response: Response) -> RecipientView:
    set_etag(response, recipient.version)
    return RecipientView.model_validate(recipient)


# --- Registered ------------------------------------------------------------------------------------------


@router.post(_PATH, status_code=201, response_model=RecipientMade, responses=refusals(401, 403, 404, 409))
async def register_recipient(
    *,
    request: Request,
    store_id: StoreId,
    caller: PrivacyOfficer,
    wanted: NewRecipient,
    session: Session,
    now: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Somebody outside to whom the store gives data. It has a part in every request whose work begins from now on; what
    is under way goes on without it. Nothing about anybody is sent before it has taken a test. The secret is shown once.
    """
    secret: str | None = None

    async def registered() -> tuple[RecipientMade, str]:
        nonlocal secret
        recipient, secret = await registry.register(
            session, store_id=store_id, wanted=wanted, settings=_settings(request), now=now
        )
        path = f"/privacy/v1/stores/{store_id}/recipients/{recipient.id}"
        return RecipientMade.model_validate(recipient), path

    caller_id = str(caller.account_id)
    reply = await once(session, request, key, store_id=store_id, caller=caller_id, make=registered)
    if secret is None:
        return reply
    # What is kept to be given again is without it.
    made = RecipientMade.model_validate_json(bytes(reply.body)).model_copy(update={"secret": secret})
    headers = {"Location": reply.headers["Location"], "Cache-Control": "no-store"}
    return Response(made.model_dump_json(), status_code=201, headers=headers, media_type="application/json")


@router.get(_PATH, responses=refusals(401, 403, 404))
async def list_recipients(
    *,
    store_id: StoreId,
    _: PrivacyOfficer,
    session: Session,
    state: RecipientState | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[RecipientView]:
    """The recipients of the store, the newest first: its register of processors (GDPR, Art. 30(1)(d))."""
    found, following = await registry.of_store(
        session, store_id=store_id, state=state, cursor=cursor, limit=limit
    )
    return Page(items=[RecipientView.model_validate(one) for one in found], next=following)


@router.get(_ONE, responses=refusals(401, 403, 404))
async def get_recipient(
    store_id: StoreId, recipient_id: RecipientId, _: PrivacyOfficer, session: Session, response: Response
) -> RecipientView:
    """Who it is, whether it is sent to, and what it has a part in."""
    return _viewed(await registry.one(session, store_id=store_id, recipient_id=recipient_id), response)


@router.patch(_ONE, responses=refusals(401, 403, 404, 409, 412, 428))
async def change_recipient(
    *,
    request: Request,
    store_id: StoreId,
    recipient_id: RecipientId,
    _: PrivacyOfficer,
    wanted: RecipientChange,
    session: Session,
    response: Response,
    if_match: IfMatch = None,
) -> RecipientView:
    """Change what is given. At another address it has to take a test before anything else is sent there."""
    recipient = await registry.change(
        session,
        store_id=store_id,
        recipient_id=recipient_id,
        wanted=wanted,
        settings=_settings(request),
        if_match=if_match,
    )
    return _viewed(recipient, response)


# --- Sent to, or not -------------------------------------------------------------------------------------


@router.post(f"{_ONE}/tests", status_code=202, responses=refusals(401, 403, 404, 409))
async def test_recipient(
    store_id: StoreId,
    recipient_id: RecipientId,
    _: PrivacyOfficer,
    session: Session,
    now: Now,
    response: Response,
) -> DeliveryView:
    """Send something about nobody, once. A recipient that takes it is active; the delivery says how it went."""
    sent = await registry.test(session, store_id=store_id, recipient_id=recipient_id, now=now)
    response.headers["Location"] = (
        f"/privacy/v1/stores/{store_id}/recipients/{recipient_id}/deliveries/{sent.id}"
    )
    return DeliveryView.model_validate(sent)


@router.post(f"{_ONE}/pausing", responses=refusals(401, 403, 404, 409))
async def pause_recipient(
    store_id: StoreId, recipient_id: RecipientId, _: PrivacyOfficer, session: Session, response: Response
) -> RecipientView:
    """Send nothing for a while. It keeps its part in requests, which wait for it: a pause delays and never loses."""
    return _viewed(await registry.pause(session, store_id=store_id, recipient_id=recipient_id), response)


@router.post(f"{_ONE}/resumption", responses=refusals(401, 403, 404, 409))
async def resume_recipient(
    store_id: StoreId, recipient_id: RecipientId, _: PrivacyOfficer, session: Session, response: Response
) -> RecipientView:
    """End a pause: what waited is sent."""
    return _viewed(await registry.resume(session, store_id=store_id, recipient_id=recipient_id), response)


@router.post(f"{_ONE}/disabling", responses=refusals(401, 403, 404))
async def disable_recipient(
    store_id: StoreId, recipient_id: RecipientId, _: PrivacyOfficer, session: Session, response: Response
) -> RecipientView:
    """Send nothing any more. What open requests still wait for from it has to be answered for, with a reason."""
    return _viewed(await registry.disable(session, store_id=store_id, recipient_id=recipient_id), response)


@router.post(f"{_ONE}/secret-rotations", responses=refusals(401, 403, 404, 409))
async def rotate_secret(
    *,
    request: Request,
    store_id: StoreId,
    recipient_id: RecipientId,
    _: PrivacyOfficer,
    wanted: Rotation,
    session: Session,
    now: Now,
    response: Response,
) -> SecretMade:
    """A new secret, shown once. For a day deliveries are signed with both, and answers may be signed with either."""
    secret = await registry.rotate(
        session,
        store_id=store_id,
        recipient_id=recipient_id,
        at_once=wanted.at_once,
        given=wanted.credential.get_secret_value() if wanted.credential else None,
        settings=_settings(request),
        now=now,
    )
    response.headers["Cache-Control"] = "no-store"
    return SecretMade(secret=secret, before_until=now if wanted.at_once else now + OVERLAP)


# --- Deliveries ------------------------------------------------------------------------------------------


@router.get(f"{_ONE}/deliveries", responses=refusals(401, 403, 404))
async def list_deliveries(
    *,
    store_id: StoreId,
    recipient_id: RecipientId,
    _: PrivacyOfficer,
    session: Session,
    state: DeliveryState | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[DeliveryView]:
    """What was sent to it, or waits, the newest first."""
    found, following = await registry.deliveries_of(
        session, store_id=store_id, recipient_id=recipient_id, state=state, cursor=cursor, limit=limit
    )
    return Page(items=[DeliveryView.model_validate(one) for one in found], next=following)


@router.get(_DELIVERY, responses=refusals(401, 403, 404))
async def get_delivery(
    store_id: StoreId, recipient_id: RecipientId, delivery_id: DeliveryId, _: PrivacyOfficer, session: Session
) -> DeliveryView:
    """Where it is."""
    found = await registry.delivery(
        session, store_id=store_id, recipient_id=recipient_id, delivery_id=delivery_id
    )
    return DeliveryView.model_validate(found)


@router.get(f"{_DELIVERY}/attempts", responses=refusals(401, 403, 404))
async def list_attempts(
    *,
    store_id: StoreId,
    recipient_id: RecipientId,
    delivery_id: DeliveryId,
    _: PrivacyOfficer,
    session: Session,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[AttemptView]:
    """Every try, in their order."""
    after = decode_cursor(cursor, int)[0] if cursor is not None else 0
    found, last = await registry.attempts_of(
        session,
        store_id=store_id,
        recipient_id=recipient_id,
        delivery_id=delivery_id,
        after=after,
        limit=limit,
    )
    following = encode_cursor(last) if last is not None else None
    return Page(items=[AttemptView.model_validate(one) for one in found], next=following)


@router.post(f"{_DELIVERY}/resending", status_code=202, responses=refusals(401, 403, 404, 409))
async def send_again(
    *,
    store_id: StoreId,
    recipient_id: RecipientId,
    delivery_id: DeliveryId,
    _: PrivacyOfficer,
    session: Session,
    now: Now,
) -> DeliveryView:
    """Send the same once more, under the same id. Whoever has it already knows it by that."""
    sent = await registry.send_again(
        session, store_id=store_id, recipient_id=recipient_id, delivery_id=delivery_id, now=now
    )
    return DeliveryView.model_validate(sent)


# --- What they say ---------------------------------------------------------------------------------------


@router.post("/deliveries/{delivery_id}/answer", status_code=204, responses=refusals(403, 404, 409))
async def answer_delivery(request: Request, delivery_id: DeliveryId, wanted: Outcomes, now: Now) -> None:
    """For a recipient: say what it has done, in its own time. Signed after Standard Webhooks with its secret, with the
    delivery's id as `webhook-id`. The same answer may come again.
    """
    await answering.answer(
        request.app.state.database,
        delivery_id,
        said=wanted.said(),
        headers=request.headers,
        content=await request.body(),
        settings=_settings(request),
        now=now,
    )
