"""Accounts: sign-up, confirmation, and a person's own profile.

Merchants are accounts of the platform's own store, `00000000-0000-4000-8000-000000000001`, by the same routes.
"""

from typing import Annotated

from fastapi import APIRouter, Body, Response

from libs.common.auth import Customer, StoreId
from libs.common.http import ClientAddress, IfMatch, refusals, set_etag
from services.identity.api.means import ThisParts
from services.identity.kinds import Profile
from services.identity.models import Account
from services.identity.schemas import (
    AccountClosed,
    AccountClosing,
    ConfirmationRequest,
    Confirmed,
    Me,
    MeChanges,
    SignUpAccepted,
    SignUpRequest,
)
from services.identity.service import accounts, closing
from services.identity.service.accounts import Applicant

router = APIRouter(prefix="/stores/{store_id}", tags=["accounts"])


@router.post("/accounts", status_code=202, responses=refusals(404, 429))
async def sign_up(
    store_id: StoreId, body: SignUpRequest, parts: ThisParts, address: ClientAddress
) -> SignUpAccepted:
    """Ask for an account: a mail tells how to go on. Asking again replaces the link of the mail before."""
    applicant = Applicant(
        email=body.email,
        password=body.password.get_secret_value(),
        name=body.name,
        language=body.language,
        address=address,
    )
    await accounts.sign_up(parts, store_id=store_id, applicant=applicant)
    return SignUpAccepted()


@router.post("/confirmations", responses=refusals(404))
async def confirm(store_id: StoreId, body: ConfirmationRequest, parts: ThisParts) -> Confirmed:
    """Make the account whose link arrived by mail; a second time changes nothing."""
    await accounts.confirm(parts, store_id=store_id, token=body.token.get_secret_value())
    return Confirmed()


@router.get("/me", responses=refusals(401, 403, 404))
async def read_me(caller: Customer, parts: ThisParts, response: Response) -> Me:
    """The account of whoever asks."""
    account = await accounts.account_of(parts, caller=caller)
    profile = await accounts.opened_profile(parts, account=account)
    set_etag(response, account.version)
    response.headers["Cache-Control"] = "private, no-store"
    return _me(account, profile)


@router.patch("/me", responses=refusals(401, 403, 404, 409, 412, 428))
async def change_me(
    caller: Customer,
    parts: ThisParts,
    response: Response,
    body: Annotated[MeChanges, Body()],
    if_match: IfMatch = None,
) -> Me:
    """Change the name, the language, or the list of addresses, which is sent whole."""
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    if "addresses" in changes:
        changes["addresses"] = tuple(body.addresses)
    account, profile = await accounts.change_profile(parts, caller=caller, changes=changes, if_match=if_match)
    set_etag(response, account.version)
    return _me(account, profile)


@router.post("/me/closing", responses=refusals(401, 403, 404, 409, 429))
async def close_account(
    caller: Customer, body: AccountClosing, parts: ThisParts, address: ClientAddress
) -> AccountClosed:
    """Close the account of whoever asks. It is deactivated at once, and every session ends; a sign-in brings it back
    within the time that the store gives. Afterwards the person's data is erased, and a mail says what the law keeps.
    """
    closed = await closing.close_account(
        parts, caller=caller, password=body.password.get_secret_value(), address=address
    )
    return AccountClosed(closed_at=closed.closed_at, ends_at=closed.ends_at)


def _me(account: Account, profile: Profile | None) -> Me:
    me = Me(
        account_id=account.id,
        subject_id=account.subject_id,
        confirmed_at=account.confirmed_at,
        on_hold=profile is None,
    )
    if profile is None:
        return me
    return me.model_copy(
        update={
            "email": profile.email,
            "name": profile.name,
            "language": profile.language,
            "addresses": list(profile.addresses),
        }
    )
