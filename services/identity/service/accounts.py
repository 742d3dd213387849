"""Sign-up, its confirmation, and the profile a person manages."""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, select, text, union_all
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import mail, throttle
from libs.common.auth import Caller
from libs.common.errors import NotFound, Problem
from libs.common.events.identity import AccountConfirmed
from libs.common.http import require_match
from libs.common.mail import Letter
from libs.common.outbox import publish
from libs.common.pace import until_step
from libs.common.personal.data import PersonalData, Sealed
from libs.common.personal.errors import KeyDestroyed, KeyRestricted, SubjectErased
from libs.common.personal.tombstones import Subject, guard
from libs.common.personal.vault import SealedFor, ToOpen, ToSeal
from libs.common.personal.vocabulary import Purpose
from libs.common.throttle import Bound
from services.identity.domain import (
    SIGN_UP_LASTS,
    AccountIsClosed,
    LinkNotValid,
    check_password,
    normal_password,
)
from services.identity.kinds import Credentials, Profile
from services.identity.models import Account, AccountEmail, SignUp, Store
from services.identity.parts import Parts
from services.identity.passwords import common_passwords
from services.identity.service.stores import store_of

_HOUR = timedelta(hours=1)

# --- Sign-up ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class Applicant:
    """What a person typed to sign up, and the address of their client."""

    email: str
    password: str
    name: str | None
    language: str | None
    address: str


async def sign_up(parts: Parts, *, store_id: UUID, applicant: Applicant) -> None:
    """Send a mail: a link that makes the account, or word that there is one already.

    The newest sign-up of an e-mail replaces those before it, so a password that somebody else set before the
    owner came dies with its link. Known and unknown people meet the same work, answer and time.
    Raises NotFound, WeakPassword, TooManyAttempts, Unavailable.
    """
    began = monotonic()
    password = normal_password(applicant.password)
    check_password(password, email=applicant.email, common=common_passwords())
    async with parts.database.session(store_id) as session:
        store = await store_of(session, store_id=store_id)
    await _limit_address(parts, store_id, applicant.address)
    password_hash = await parts.passwords.hash(password)
    try:
        await _apply(parts, store, applicant, password_hash)
    except SubjectErased:
        # An erasure ended the generation after its key was made: a live command begins the next one.
        await _apply(parts, store, applicant, password_hash)
    await until_step(began, parts.settings.answer_step)


async def _limit_address(parts: Parts, store_id: UUID, address: str) -> None:
    key = await parts.vault.blind_index(store_id, "sign-up-address", throttle.network(address))
    bound = Bound(key, parts.settings.sign_ups_per_address, _HOUR)
    await throttle.count_or_refuse(parts.database, store_id, [bound], parts.clock())


async def _apply(parts: Parts, store: Store, applicant: Applicant, password_hash: str) -> None:
    token = secrets.token_urlsafe(32)
    pieces = _pieces(parts, store, applicant, password_hash, token)
    subject_id = await parts.vault.subject_id(store.store_id, applicant.email)
    indexes = await parts.vault.blind_indexes(store.store_id, "email", applicant.email)
    (profile, credentials, confirm_letter, exists_letter), generation = await _sealed(
        parts, store.store_id, subject_id, pieces
    )
    person: dict[str, Any] = {"store_id": store.store_id, "subject_id": subject_id, "generation": generation}
    async with parts.database.session(store.store_id) as session:
        await guard(session, store.store_id, subject_id, generation)
        mails = Bound(b"mails" + indexes[0], parts.settings.mails_per_person, _HOUR)
        if await throttle.count(session, store.store_id, [mails], parts.clock()):
            return
        if await is_taken(session, (store.store_id, subject_id, generation), indexes):
            mail.post(session, exists_letter, **person)
            return
        await _replace_sign_up(
            session,
            indexes,
            **person,
            token_hash=_hash(token),
            profile=profile,
            credentials=credentials,
            started_at=parts.clock(),
            expires_at=parts.clock() + SIGN_UP_LASTS,
        )
        mail.post(session, confirm_letter, **person)


def _pieces(
    parts: Parts, store: Store, applicant: Applicant, password_hash: str, token: str
) -> tuple[Profile, Credentials, Letter, Letter]:
    """Everything that either outcome needs, so that both seal the same: the account, and the two mails."""
    to, language = applicant.email, applicant.language or store.language
    link = _link(parts.settings.public_url, store.store_id, language, token)
    values = {"store": store.name}
    return (
        Profile(email=to, name=applicant.name, language=language),
        Credentials(password_hash=password_hash),
        Letter(to=to, template="confirm-account", language=language, values={**values, "link": link}),
        Letter(to=to, template="account-exists", language=language, values=values),
    )


async def _sealed(
    parts: Parts, store_id: UUID, subject_id: UUID, pieces: Iterable[PersonalData]
) -> tuple[list[Sealed[Any]], int]:
    """Boxes in the same order, and the generation they all belong to: it begins here if the last one is over."""
    to_seal: list[ToSeal[Any]] = [ToSeal(piece, store_id, subject_id, begin=True) for piece in pieces]
    sealed: list[SealedFor[Any]] = []
    for one in await parts.vault.seal_many(to_seal):
        if isinstance(one, Problem):
            raise one
        sealed.append(one)
    return [one.box for one in sealed], min(one.generation for one in sealed)


async def is_taken(
    session: AsyncSession, of: Subject, indexes: Sequence[bytes], *, but: UUID | None = None
) -> bool:
    """Whether an address is an account's, or a confirmed one of an account: by its indexes, and by whoever is known by
    it. `but` is an account that does not count.

    An account of an earlier generation awaits its erasure and counts as none.
    """
    store_id, subject_id, generation = of
    own = select(Account.id).where(
        Account.store_id == store_id,
        Account.email_index.in_(indexes),
        Account.generation >= generation,
        Account.id != but,
    )
    further = select(AccountEmail.account_id).where(
        AccountEmail.store_id == store_id,
        AccountEmail.email_subject_id == subject_id,
        AccountEmail.email_generation >= generation,
        AccountEmail.confirmed_at.is_not(None),
        AccountEmail.account_id != but,
    )
    return await session.scalar(union_all(own, further).limit(1)) is not None


_HOLD_ADDRESS = text("SELECT pg_advisory_xact_lock(hashtextextended('address of ' || :subject_id, 0))")


async def hold_address(session: AsyncSession, subject_id: UUID) -> None:
    """No other account gets the address that this subject is derived from until the session ends."""
    await session.execute(_HOLD_ADDRESS, {"subject_id": str(subject_id)})


async def _replace_sign_up(session: AsyncSession, indexes: Sequence[bytes], **values: Any) -> None:
    index, *others = indexes
    if others:
        of_same = SignUp.store_id == values["store_id"], SignUp.email_index.in_(others)
        await session.execute(delete(SignUp).where(*of_same))
    values |= {"id": uuid4(), "email_index": index, "used_at": None}
    await session.execute(
        upsert(SignUp)
        .values(values)
        .on_conflict_do_update(index_elements=[SignUp.store_id, SignUp.email_index], set_=values)
    )


def _link(public_url: str, store_id: UUID, language: str, token: str) -> str:
    """What follows the # never reaches a server, a log or another site."""
    return f"{public_url}/identity/confirm?language={language}#store={store_id}&token={token}"


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


# --- Confirmation ----------------------------------------------------------------------------------------


async def confirm(parts: Parts, *, store_id: UUID, token: str) -> None:
    """Make the account of a sign-up, with the password of that very sign-up. A second time changes nothing.

    Raises LinkNotValid.
    """
    async with parts.database.session(store_id) as session:
        found = await session.scalar(_sign_up_of(store_id, token))
    if found is None or found.expires_at <= parts.clock():
        raise LinkNotValid
    indexes = await _indexes_of(parts, found)
    async with parts.database.session(store_id) as session:
        try:
            # Before the row is locked: an erasure takes the two in the same order.
            await guard(session, store_id, found.subject_id, found.generation)
        except SubjectErased:
            raise LinkNotValid from None
        sign_up = await session.scalar(
            _sign_up_of(store_id, token).with_for_update().execution_options(populate_existing=True)
        )
        if sign_up is None:
            raise LinkNotValid
        if sign_up.used_at is None:
            await _make_account(session, parts, sign_up, indexes)


def _sign_up_of(store_id: UUID, token: str) -> Any:
    return select(SignUp).where(SignUp.store_id == store_id, SignUp.token_hash == _hash(token))


async def _indexes_of(parts: Parts, sign_up: SignUp) -> Sequence[bytes]:
    """What an account of the same e-mail may be found by; while the store's secret changes the box has to say."""
    if sign_up.profile is None or not await parts.vault.is_indexing_anew(sign_up.store_id):
        return [sign_up.email_index]
    try:
        profile = await parts.vault.open(
            sign_up.profile,
            store_id=sign_up.store_id,
            subject_id=sign_up.subject_id,
            purpose=Purpose.AUTHENTICATION,
        )
    except KeyDestroyed:
        raise LinkNotValid from None
    return await parts.vault.blind_indexes(sign_up.store_id, "email", profile.email)


async def _make_account(
    session: AsyncSession, parts: Parts, sign_up: SignUp, indexes: Sequence[bytes]
) -> None:
    if sign_up.profile is None or sign_up.credentials is None:
        raise LinkNotValid
    await hold_address(session, sign_up.subject_id)
    if await is_taken(session, (sign_up.store_id, sign_up.subject_id, sign_up.generation), indexes):
        raise LinkNotValid
    await session.execute(
        delete(Account).where(Account.store_id == sign_up.store_id, Account.email_index.in_(indexes))
    )
    account = Account(
        store_id=sign_up.store_id,
        subject_id=sign_up.subject_id,
        generation=sign_up.generation,
        email_index=indexes[0],
        profile=sign_up.profile,
        credentials=sign_up.credentials,
        version=1,
        confirmed_at=parts.clock(),
    )
    session.add(account)
    sign_up.used_at = parts.clock()
    sign_up.profile = sign_up.credentials = None
    await session.flush()
    confirmed = AccountConfirmed(
        account_id=account.id,
        subject_id=account.subject_id,
        generation=account.generation,
        version=account.version,
    )
    await publish(session, confirmed, store_id=account.store_id, source="identity")


# --- Profile ---------------------------------------------------------------------------------------------


async def account_of(parts: Parts, *, caller: Caller) -> Account:
    """The caller's account. Raises NotFound once it is erased, AccountIsClosed for a token from before that."""
    async with parts.database.session(caller.store_id) as session:
        account = await session.scalar(_account_of(caller))
    if account is None:
        raise NotFound
    if account.ends_at is not None:
        raise AccountIsClosed(account.ends_at)
    return account


async def opened_profile(parts: Parts, *, account: Account) -> Profile | None:
    """What the person said of themselves; None while it is on hold. Raises NotFound once it is erased."""
    try:
        return await parts.vault.open(
            account.profile,
            store_id=account.store_id,
            subject_id=account.subject_id,
            purpose=Purpose.PROVIDE_ACCOUNT,
        )
    except KeyRestricted:
        return None
    except KeyDestroyed:
        raise NotFound from None


async def change_profile(
    parts: Parts, *, caller: Caller, changes: dict[str, Any], if_match: str | None
) -> tuple[Account, Profile | None]:
    """The account and its profile with the changes. Raises NotFound, a problem of If-Match.

    While it is on hold, to correct what one said of oneself is still one's right (GDPR, Art. 16): the change is
    sealed under the same key, and shown once the restriction is lifted.
    """
    account = await account_of(parts, caller=caller)
    require_match(if_match, account.version)
    shown = await opened_profile(parts, account=account)
    [opened] = await parts.vault.open_to_change(
        [ToOpen(account.profile, account.store_id, account.subject_id)], purpose=Purpose.RIGHTS_OF_THE_PERSON
    )
    if isinstance(opened, Problem):
        raise NotFound if isinstance(opened, KeyDestroyed) else opened
    changed = opened.data.model_copy(update=changes)
    async with parts.database.session(account.store_id) as session:
        await guard(session, account.store_id, account.subject_id, account.generation)
        current = await session.scalar(_account_of(caller).with_for_update())
        if current is None or current.generation != account.generation:
            raise NotFound
        if current.ends_at is not None:
            raise AccountIsClosed(current.ends_at)
        require_match(if_match, current.version)
        current.profile = opened.seal(changed)
        current.version += 1
    return current, changed if shown is not None else None


def _account_of(caller: Caller) -> Any:
    return select(Account).where(Account.store_id == caller.store_id, Account.id == caller.account_id)
