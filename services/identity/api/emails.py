"""Further e-mail addresses of an account."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response

from libs.common.auth import Customer, StoreId
from libs.common.http import ClientAddress, refusals
from services.identity.api.means import ThisParts
from services.identity.schemas import (
    EmailAdded,
    EmailConfirmation,
    EmailList,
    EmailView,
    FurtherEmailRequest,
)
from services.identity.service import emails

router = APIRouter(prefix="/stores/{store_id}", tags=["accounts"])


@router.post("/me/emails", status_code=202, responses=refusals(401, 403, 404, 409, 429))
async def add_email(caller: Customer, body: FurtherEmailRequest, parts: ThisParts) -> EmailAdded:
    """Ask for another address to be yours: a mail to it tells how to go on. Asking again replaces the link before."""
    await emails.add(parts, caller=caller, email=body.email, language=body.language)
    return EmailAdded()


@router.post("/email-confirmations", status_code=204, responses=refusals(401, 404, 429))
async def confirm_email(
    store_id: StoreId, body: EmailConfirmation, parts: ThisParts, address: ClientAddress
) -> None:
    """Confirm an address with the link that was sent to it and the password of the account that asked for it.

    From then on what was bought or asked for under it is the same person's.
    """
    await emails.confirm(
        parts,
        store_id=store_id,
        token=body.token.get_secret_value(),
        password=body.password.get_secret_value(),
        address=address,
    )


@router.get("/me/emails", responses=refusals(401, 403, 404))
async def list_emails(caller: Customer, parts: ThisParts, response: Response) -> EmailList:
    """The further addresses of whoever asks, those that wait for their confirmation among them; at most five."""
    response.headers["Cache-Control"] = "private, no-store"
    found = await emails.emails_of(parts, caller=caller)
    return EmailList(
        items=[EmailView(id=row.id, email=email, confirmed_at=row.confirmed_at) for row, email in found]
    )


@router.delete("/me/emails/{email_id}", status_code=204, responses=refusals(401, 403, 404))
async def remove_email(caller: Customer, parts: ThisParts, email_id: Annotated[UUID, Path()]) -> None:
    """The address is yours no more. Requests that you make later are not about what was bought under it."""
    await emails.remove(parts, caller=caller, email_id=email_id)
