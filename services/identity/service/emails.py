"""Further e-mail addresses of an account.

One is its owner's once they have shown both: that they read its mail, by the link, and that the account is theirs, by
its password. From then on who has written or bought under it is the same person. Whoever adds somebody else's address
gets nowhere: its owner has the link and not the password. Whether an address has an account is said to its mailbox
alone.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import mail, throttle
from libs.common.auth import Caller
from libs.common.errors import NotFound, Problem
from libs.common.events.identity import EmailConfirmed, EmailRemoved
from libs.common.mail import Letter
from libs.common.outbox import publish
from libs.common.pace import paced, until_step
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed, KeyRestricted, SubjectErased
from libs.common.personal.tombstones import erased_among
from libs.common.personal.vault import SealedFor, ToOpen, ToSeal
from libs.common.personal.vocabulary import Purpose
from libs.common.throttle import Bound
from services.identity.domain import (
    EMAIL_LINK_LASTS,
    EMAILS,
    LinkNotValid,
    OwnEmail,
    SignInRefused,
    TooManyEmails,
    normal_password,
)
from services.identity.kinds import FurtherEmail
from services.identity.models import Account, AccountEmail, Store
from services.identity.parts import Parts
from services.identity.service import accounts
from services.identity.service.sessions import attempts_of, credentials_of
from services.identity.service.stores import store_of

_HOUR = timedelta(hours=1)

# --- Adding ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class _Wanted:
    """An address, whoever is known by it, and the token of the link that is sent there."""

    email: str
    language: str
    subject_id: UUID
    indexes: Sequence[bytes]
    token: str


async def add(parts: Parts, *, caller: Caller, email: str, language: str | None) -> None:
    """Send a mail to the address: a link that confirms it, or word that it has an account of its own.

    The same work, answer and time for both. Raises NotFound, OwnEmail, TooManyEmails, TooManyAttempts, SubjectErased,
    Unavailable.
    """
    began = monotonic()
    account = await accounts.account_of(parts, caller=caller)
    bound = Bound(b"emails" + account.id.bytes, parts.settings.mails_per_person, _HOUR)
    await throttle.count_or_refuse(parts.database, account.store_id, [bound], parts.clock())
    subject_id = await parts.vault.subject_id(account.store_id, email)
    if subject_id == account.subject_id:
        raise OwnEmail
    async with parts.database.session(account.store_id) as session:
        store = await store_of(session, store_id=account.store_id)
    indexes = await parts.vault.blind_indexes(account.store_id, "email", email)
    wanted = _Wanted(email, language or store.language, subject_id, indexes, secrets.token_urlsafe(32))
    try:
        await _add(parts, account, store, wanted)
    except SubjectErased:
        # Whoever was known by the address was erased after its key was made: a live command begins anew.
        await _add(parts, account, store, wanted)
    await until_step(began, parts.settings.answer_step)


async def _add(parts: Parts, account: Account, store: Store, wanted: _Wanted) -> None:
    store_id = account.store_id
    box = await parts.vault.seal(
        FurtherEmail(email=wanted.email), store_id=store_id, subject_id=account.subject_id
    )
    link, taken = await _letters(parts, store, wanted)
    reader: dict[str, Any] = {
        "store_id": store_id,
        "subject_id": wanted.subject_id,
        "generation": link.generation,
    }
    async with parts.database.session(store_id) as session:
        whose = store_id, wanted.subject_id, link.generation
        own = store_id, account.subject_id, account.generation
        if await erased_among(session, [own, whose]) or box.generation != account.generation:
            raise SubjectErased
        await _check_room(session, account, wanted.subject_id)
        mails = Bound(b"mails" + wanted.indexes[0], parts.settings.mails_per_person, _HOUR)
        if await throttle.count(session, store_id, [mails], parts.clock()):
            return
        if await accounts.is_taken(session, whose, wanted.indexes, but=account.id):
            mail.post(session, taken.box, **reader)
        elif await _keep(session, parts, account, wanted, box=box.box, generation=link.generation):
            mail.post(session, link.box, **reader)


async def _letters(
    parts: Parts, store: Store, wanted: _Wanted
) -> tuple[SealedFor[Letter], SealedFor[Letter]]:
    """Both, so that either outcome seals the same; they are of whoever the address belongs to."""
    place = f"{parts.settings.public_url}/identity/confirm-email?language={wanted.language}"
    link = f"{place}#store={store.store_id}&token={wanted.token}"
    more = {"to": wanted.email, "language": wanted.language}
    letters = [
        Letter(template="confirm-email", values={"store": store.name, "link": link}, **more),
        Letter(template="email-taken", values={"store": store.name}, **more),
    ]
    to_seal = [ToSeal(one, store.store_id, wanted.subject_id, begin=True) for one in letters]
    sealed: list[SealedFor[Letter]] = []
    for one in await parts.vault.seal_many(to_seal):
        if isinstance(one, Problem):
            raise one
        sealed.append(one)
    confirm, taken = sealed
    return confirm, taken


async def _keep(
    session: AsyncSession,
    parts: Parts,
    account: Account,
    wanted: _Wanted,
    *,
    box: Sealed[FurtherEmail],
    generation: int,
) -> bool:
    """Note that the address waits for its confirmation; not if it has it already."""
    values: dict[str, Any] = {
        "id": uuid4(),
        "store_id": account.store_id,
        "account_id": account.id,
        "subject_id": account.subject_id,
        "generation": account.generation,
        "email_subject_id": wanted.subject_id,
        "email_generation": generation,
        "token_hash": _hash(wanted.token),
        "box": box,
        "asked_at": parts.clock(),
        "expires_at": parts.clock() + EMAIL_LINK_LASTS,
    }
    kept = await session.scalar(
        upsert(AccountEmail)
        .values(values)
        .on_conflict_do_update(
            index_elements=[AccountEmail.account_id, AccountEmail.email_subject_id],
            set_=values,
            where=AccountEmail.confirmed_at.is_(None),
        )
        .returning(AccountEmail.id)
    )
    return kept is not None


async def _check_room(session: AsyncSession, account: Account, subject_id: UUID) -> None:
    locked = await session.scalar(select(Account.id).where(Account.id == account.id).with_for_update())
    if locked is None:
        raise NotFound
    others = await session.scalar(
        select(func.count())
        .select_from(AccountEmail)
        .where(AccountEmail.account_id == account.id, AccountEmail.email_subject_id != subject_id)
    )
    if (others or 0) >= EMAILS:
        raise TooManyEmails(most=EMAILS)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


# --- Confirmation ----------------------------------------------------------------------------------------


async def confirm(parts: Parts, *, store_id: UUID, token: str, password: str, address: str) -> None:
    """The address is the account's from now on. A second time changes nothing.

    Raises LinkNotValid, SignInRefused for another password, TooManyAttempts, Unavailable.
    """
    async with paced(parts.settings.answer_step):
        async with parts.database.session(store_id) as session:
            added = await session.scalar(_with(store_id, token))
            if added is None or (added.confirmed_at is None and added.expires_at <= parts.clock()):
                raise LinkNotValid
            account = await session.get_one(Account, added.account_id)
            if account.closed_at is not None:
                # Nothing is added to it until its owner has come back.
                raise LinkNotValid
        person, client = attempts = await attempts_of(parts, store_id, account.email_index, address)
        await throttle.count_or_refuse(parts.database, store_id, attempts, parts.clock())
        credentials = await credentials_of(parts, account)
        normal = normal_password(password)
        if not await parts.passwords.verify(credentials.password_hash if credentials else None, normal):
            raise SignInRefused
        indexes = await _indexes_of(parts, added)
        async with parts.database.session(store_id) as session:
            await _confirm(session, parts, added, indexes)
            await throttle.succeeded(session, store_id, person=person.key, address=client.key)


def _with(store_id: UUID, token: str) -> Any:
    return select(AccountEmail).where(
        AccountEmail.store_id == store_id, AccountEmail.token_hash == _hash(token)
    )


async def _indexes_of(parts: Parts, added: AccountEmail) -> Sequence[bytes]:
    """What an account of the same address may be found by."""
    try:
        opened = await parts.vault.open(
            added.box, store_id=added.store_id, subject_id=added.subject_id, purpose=Purpose.AUTHENTICATION
        )
    except KeyDestroyed:
        raise LinkNotValid from None
    return await parts.vault.blind_indexes(added.store_id, "email", opened.email)


async def _confirm(
    session: AsyncSession, parts: Parts, added: AccountEmail, indexes: Sequence[bytes]
) -> None:
    own = added.store_id, added.subject_id, added.generation
    whose = added.store_id, added.email_subject_id, added.email_generation
    if await erased_among(session, [own, whose]):
        raise LinkNotValid
    await accounts.hold_address(session, added.email_subject_id)
    row = await session.scalar(
        select(AccountEmail)
        .where(AccountEmail.id == added.id, AccountEmail.token_hash == added.token_hash)
        .with_for_update()
    )
    if row is None:
        raise LinkNotValid
    if row.confirmed_at is not None:
        return
    if await accounts.is_taken(session, whose, indexes, but=row.account_id):
        raise LinkNotValid
    row.confirmed_at = parts.clock()
    await publish(session, EmailConfirmed(**_facts(row)), store_id=row.store_id, source="identity")


def _facts(row: AccountEmail) -> dict[str, Any]:
    return {
        "account_id": row.account_id,
        "alias_id": row.id,
        "subject_id": row.subject_id,
        "generation": row.generation,
        "alias_subject_id": row.email_subject_id,
        "alias_generation": row.email_generation,
    }


# --- Listing and removing --------------------------------------------------------------------------------


async def emails_of(parts: Parts, *, caller: Caller) -> list[tuple[AccountEmail, str | None]]:
    """The further addresses, the oldest first; None in place of one while it is on hold. Raises NotFound."""
    account = await accounts.account_of(parts, caller=caller)
    async with parts.database.session(account.store_id) as session:
        rows = list(
            await session.scalars(
                select(AccountEmail)
                .where(AccountEmail.account_id == account.id)
                .order_by(AccountEmail.asked_at, AccountEmail.id)
            )
        )
    boxes = [ToOpen(row.box, row.store_id, row.subject_id) for row in rows]
    opened = await parts.vault.open_many(boxes, purpose=Purpose.PROVIDE_ACCOUNT) if boxes else []
    return [(row, _shown(one)) for row, one in zip(rows, opened, strict=True)]


def _shown(opened: FurtherEmail | Problem) -> str | None:
    match opened:
        case FurtherEmail():
            return opened.email
        case KeyRestricted():
            return None
        case KeyDestroyed():
            raise NotFound
        case _:
            raise opened


async def remove(parts: Parts, *, caller: Caller, email_id: UUID) -> None:
    """The address is not the account's any more: whoever writes from it is nobody's but their own. Raises NotFound."""
    async with parts.database.session(caller.store_id) as session:
        row = await session.scalar(
            select(AccountEmail)
            .where(
                AccountEmail.store_id == caller.store_id,
                AccountEmail.account_id == caller.account_id,
                AccountEmail.id == email_id,
            )
            .with_for_update()
        )
        if row is None:
            raise NotFound
        await session.delete(row)
        if row.confirmed_at is not None:
            await publish(session, EmailRemoved(**_facts(row)), store_id=row.store_id, source="identity")
