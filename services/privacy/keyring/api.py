"""`/keyring/v1`: for services only, never behind the public port."""

from fastapi import APIRouter, Request

from libs.common.db import ALL_STORES
from services.privacy.keyring.callers import CallingService
from services.privacy.keyring.domain import Grant, check_govern, check_mint, granted
from services.privacy.keyring.schemas import (
    Answer,
    BucketsAsked,
    Changed,
    DestroyedBucket,
    DestroyedKey,
    DestroyedTenant,
    Erased,
    ErasuresAsked,
    ExpiredBucket,
    ExpiriesAsked,
    Fate,
    FatesAsked,
    KeysAsked,
    LivesAsked,
    MintedKey,
    NothingAsked,
    ObjectionsAsked,
    OpenedKey,
    OpeningAsked,
    Restoration,
    RestrictionsAsked,
    Retired,
    RetiredKeysAsked,
    RetirementsAsked,
    Rotation,
    RotationsAsked,
    StoresAsked,
    StoreSecret,
    SubjectsAsked,
    SubjectStatus,
)
from services.privacy.keyring.service import (
    destroying,
    expiring,
    looking,
    minting,
    opening,
    parts,
    restricting,
    stores,
    tenants,
)

router = APIRouter(prefix="/keyring/v1", tags=["keyring"])


@router.post("/stores/secrets")
async def store_secrets(request: Request, caller: CallingService, asked: StoresAsked) -> Answer[StoreSecret]:
    """The secrets of each store, from which subject ids and blind indexes are derived."""
    state = request.app.state
    async with state.database.transaction(ALL_STORES) as transaction:
        items = await stores.store_secrets(
            transaction, stores=asked.stores, master_keys=state.master_keys, now=state.clock()
        )
    return Answer(items=items)


@router.post("/stores/rotate-indexes")
async def rotate_indexes(request: Request, caller: CallingService, asked: StoresAsked) -> Answer[Rotation]:
    """Give these stores other secrets for their blind indexes. One that is changing already goes on."""
    check_govern(_grant(request, caller))
    state = request.app.state
    async with state.database.transaction(ALL_STORES) as transaction:
        items = await stores.rotate_indexes(
            transaction,
            stores=asked.stores,
            master_keys=state.master_keys,
            now=state.clock(),
            lead_seconds=state.lead_seconds,
        )
    return Answer(items=items)


@router.post("/stores/rotations")
async def rotations(request: Request, caller: CallingService, asked: NothingAsked) -> Answer[Rotation]:
    """The stores whose rows the caller has still to index anew."""
    state = request.app.state
    async with state.database.transaction(ALL_STORES) as transaction:
        items = await stores.rotations(
            transaction, service=caller, now=state.clock(), lead_seconds=state.lead_seconds
        )
    return Answer(items=items)


@router.post("/stores/indexed")
async def report_indexed(request: Request, caller: CallingService, asked: RotationsAsked) -> Answer[Rotation]:
    """The caller has no row left that is indexed by an earlier epoch; when all say so, the earlier secrets go."""
    state = request.app.state
    async with state.database.transaction(ALL_STORES) as transaction:
        items = await stores.report_indexed(
            transaction, done=asked.items, service=caller, services=state.tokens.services
        )
    return Answer(items=items)


@router.post("/restorations")
async def restorations(request: Request, caller: CallingService, asked: NothingAsked) -> Answer[Restoration]:
    """From which backups this keyring was restored."""
    check_govern(_grant(request, caller))
    async with request.app.state.database.transaction(ALL_STORES) as transaction:
        items = await looking.restorations(transaction)
    return Answer(items=items)


@router.post("/fates")
async def fates(request: Request, caller: CallingService, asked: FatesAsked) -> Answer[Fate]:
    """Whose data is erased or on hold, a batch in the order of store, subject and generation."""
    check_govern(_grant(request, caller))
    async with request.app.state.database.transaction(ALL_STORES) as transaction:
        items = await looking.fates(transaction, after=asked.after)
    return Answer(items=items)


@router.post("/keys/mint")
async def mint(request: Request, caller: CallingService, asked: KeysAsked) -> Answer[MintedKey]:
    """Keys to seal with, made if need be. Making one twice gives the same."""
    check_mint(_grant(request, caller), {item.retention for item in asked.items})
    state = request.app.state
    async with state.database.transaction(ALL_STORES) as transaction:
        items = await minting.mint(
            transaction, wanted=asked.items, today=state.today(), master_keys=state.master_keys
        )
    return Answer(items=items)


@router.post("/keys/open")
async def open_keys(request: Request, caller: CallingService, asked: OpeningAsked) -> Answer[OpenedKey]:
    """Keys to open boxes with, counted by service and purpose."""
    state = request.app.state
    async with state.database.transaction(ALL_STORES) as transaction:
        items = await opening.open_keys(
            transaction,
            service=caller,
            grant=_grant(request, caller),
            purpose=asked.purpose,
            key_ids=asked.key_ids,
            today=state.today(),
            master_keys=state.master_keys,
            log=state.destructions,
        )
    return Answer(items=items)


@router.post("/keys/destroy")
async def destroy(request: Request, caller: CallingService, asked: ErasuresAsked) -> Answer[Erased]:
    """Erase generations of people for good, and say what the law keeps."""
    check_govern(_grant(request, caller))
    state = request.app.state
    items = await destroying.destroy(
        state.database, state.destructions, erasures=asked.items, today=state.today()
    )
    return Answer(items=items)


@router.post("/keys/restrict")
async def restrict(request: Request, caller: CallingService, asked: RestrictionsAsked) -> Answer[Changed]:
    """Open the keys of these people for storage, rights and legal claims only; what is sealed next has new keys."""
    check_govern(_grant(request, caller))
    async with request.app.state.database.transaction(ALL_STORES) as transaction:
        items = await restricting.restrict(transaction, lives=asked.items, made_before=asked.made_before)
    return Answer(items=items)


@router.post("/keys/lift")
async def lift(request: Request, caller: CallingService, asked: LivesAsked) -> Answer[Changed]:
    """End restrictions: every key of these people opens again."""
    check_govern(_grant(request, caller))
    async with request.app.state.database.transaction(ALL_STORES) as transaction:
        items = await restricting.lift(transaction, lives=asked.items)
    return Answer(items=items)


@router.post("/keys/object")
async def object_to(request: Request, caller: CallingService, asked: ObjectionsAsked) -> Answer[Changed]:
    """Close the present and future keys of these people to a purpose, or allow it again."""
    check_govern(_grant(request, caller))
    async with request.app.state.database.transaction(ALL_STORES) as transaction:
        items = await restricting.object_to(transaction, objections=asked.items)
    return Answer(items=items)


@router.post("/keys/retire")
async def retire(request: Request, caller: CallingService, asked: RetirementsAsked) -> Answer[Retired]:
    """Seal no more with the present keys of these people; they open until they are destroyed."""
    check_govern(_grant(request, caller))
    async with request.app.state.database.transaction(ALL_STORES) as transaction:
        items = await parts.retire(transaction, retirements=asked.items)
    return Answer(items=items)


@router.post("/keys/destroy-retired")
async def destroy_retired(
    request: Request, caller: CallingService, asked: RetiredKeysAsked
) -> Answer[DestroyedKey]:
    """Destroy retired keys for good: a part of what is held about a person is erased."""
    check_govern(_grant(request, caller))
    state = request.app.state
    items = await parts.destroy_retired(state.database, state.destructions, key_ids=asked.key_ids)
    return Answer(items=items)


@router.post("/keys/destroy-buckets")
async def destroy_buckets(
    request: Request, caller: CallingService, asked: BucketsAsked
) -> Answer[DestroyedBucket]:
    """Destroy the keys of buckets that end alone: of a request that nobody verified, of a document that was seen."""
    check_govern(_grant(request, caller))
    state = request.app.state
    return Answer(items=await parts.destroy_buckets(state.database, state.destructions, buckets=asked.items))


@router.post("/tenants/destroy")
async def destroy_tenants(
    request: Request, caller: CallingService, asked: StoresAsked
) -> Answer[DestroyedTenant]:
    """Destroy what stores keep of people and no law does, all of it at once; ask again until nothing is left."""
    check_govern(_grant(request, caller))
    state = request.app.state
    items = await tenants.destroy(state.database, state.destructions, stores=asked.stores)
    return Answer(items=items)


@router.post("/keys/expire")
async def expire(request: Request, caller: CallingService, asked: ExpiriesAsked) -> Answer[Changed]:
    """Set the last day of the keys of these buckets, or take it back. What is destroyed stays destroyed."""
    check_govern(_grant(request, caller))
    async with request.app.state.database.transaction(ALL_STORES) as transaction:
        items = await expiring.expire(transaction, expiries=asked.items)
    return Answer(items=items)


@router.post("/keys/destroy-expired")
async def destroy_expired(
    request: Request, caller: CallingService, asked: ExpiriesAsked
) -> Answer[ExpiredBucket]:
    """Destroy the keys of buckets whose last day is over. What is on hold, or has a later day, stays."""
    check_govern(_grant(request, caller))
    state = request.app.state
    items = await expiring.destroy_expired(
        state.database, state.destructions, expiries=asked.items, today=state.today()
    )
    return Answer(items=items)


@router.post("/keys/status")
async def status(request: Request, caller: CallingService, asked: SubjectsAsked) -> Answer[SubjectStatus]:
    """The keys that still open, without their material, and what was objected to."""
    check_govern(_grant(request, caller))
    async with request.app.state.database.transaction(ALL_STORES) as transaction:
        items = await looking.status(transaction, subjects=asked.items)
    return Answer(items=items)


def _grant(request: Request, caller: str) -> Grant:
    return granted(caller, request.app.state.grants)
