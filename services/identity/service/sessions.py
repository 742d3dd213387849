"""Sign-in, refresh, sign-out. A session is a family of refresh tokens that rotate at each use."""

import base64
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never
from uuid import UUID, uuid4

from sqlalchemy import and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import throttle
from libs.common.auth import AUDIENCE, Caller, Role
from libs.common.db import switch_store
from libs.common.errors import NotFound, Unavailable
from libs.common.mail import Letter
from libs.common.pace import paced
from libs.common.personal.data import Sealed
from libs.common.personal.errors import KeyDestroyed, KeyRestricted, SubjectErased
from libs.common.personal.tombstones import guard
from libs.common.personal.vocabulary import Purpose
from libs.common.throttle import Bound
from services.identity.domain import (
    ACCESS_TOKEN_LASTS,
    SESSION_LASTS,
    AlreadyRotated,
    Refresh,
    RefreshRefused,
    Returning,
    SignInRefused,
    judge_refresh,
    judge_return,
    normal_password,
)
from services.identity.kinds import Credentials
from services.identity.models import Account, AccountSession, Membership
from services.identity.parts import Parts
from services.identity.service import reopening
from services.identity.service.stores import store_of

_WINDOW = timedelta(minutes=15)
_FAMILY_BYTES = 16
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """An access token and the refresh token that comes after it."""

    access_token: str
    refresh_token: str


# --- Sign-in ---------------------------------------------------------------------------------------------


async def sign_in(parts: Parts, *, store_id: UUID, email: str, password: str, address: str) -> Tokens:
    """A new session. Raises NotFound for an unknown store, SignInRefused, TooManyAttempts, Unavailable.

    A refusal is the same in status, words and time for an unknown person, another password, an account that
    is not confirmed, and one whose keys are destroyed.
    """
    async with paced(parts.settings.answer_step):
        async with parts.database.session(store_id) as session:
            await store_of(session, store_id=store_id)
        indexes = await parts.vault.blind_indexes(store_id, "email", email)
        attempts = await attempts_of(parts, store_id, indexes[0], address)
        await throttle.count_or_refuse(parts.database, store_id, attempts, parts.clock())
        async with parts.database.session(store_id) as session:
            account = await session.scalar(_account_with(store_id, indexes))
        credentials = await credentials_of(parts, account)
        normal = normal_password(password)
        right = await parts.passwords.verify(credentials.password_hash if credentials else None, normal)
        if account is None or credentials is None or not right:
            raise SignInRefused
        renewed = await _renewed(parts, account, credentials, normal)
        letter = await _welcome_back(parts, account)
        async with parts.database.session(store_id) as session:
            started, refresh_token = await _start(session, parts, account, renewed, letter)
            person, client = attempts
            await throttle.succeeded(session, store_id, person=person.key, address=client.key)
    return Tokens(await parts.keys.sign(_claims_of_customer(parts, started)), refresh_token)


async def attempts_of(parts: Parts, store_id: UUID, index: bytes, address: str) -> tuple[Bound, Bound]:
    """What is counted of an attempt to show a password: by person, and by address."""
    client = await parts.vault.blind_index(store_id, "sign-in-address", throttle.network(address))
    return (
        Bound(b"sign-in" + index, parts.settings.sign_ins_per_account, _WINDOW),
        Bound(client, parts.settings.sign_ins_per_address, _WINDOW),
    )


def _account_with(store_id: UUID, indexes: Sequence[bytes]) -> Any:
    return select(Account).where(Account.store_id == store_id, Account.email_index.in_(indexes))


async def credentials_of(parts: Parts, account: Account | None) -> Credentials | None:
    """What a password is checked against; None where it can be read no more."""
    if account is None:
        return None
    try:
        return await parts.vault.open(
            account.credentials,
            store_id=account.store_id,
            subject_id=account.subject_id,
            purpose=Purpose.AUTHENTICATION,
        )
    except (KeyDestroyed, KeyRestricted):
        return None


async def _renewed(
    parts: Parts, account: Account, credentials: Credentials, password: str
) -> Sealed[Credentials] | None:
    """The credentials hashed anew when the parameters of hashing have changed since."""
    if not parts.passwords.is_outdated(credentials.password_hash):
        return None
    fresh = Credentials(password_hash=await parts.passwords.hash(password))
    try:
        sealed = await parts.vault.seal(fresh, store_id=account.store_id, subject_id=account.subject_id)
    except SubjectErased:
        raise SignInRefused from None
    return sealed.box


async def _welcome_back(parts: Parts, account: Account) -> Sealed[Letter] | None:
    try:
        return await reopening.welcome_back(parts, account)
    except (KeyDestroyed, SubjectErased):
        raise SignInRefused from None


async def _start(
    session: AsyncSession,
    parts: Parts,
    account: Account,
    renewed: Sealed[Credentials] | None,
    letter: Sealed[Letter] | None,
) -> tuple[AccountSession, str]:
    try:
        await guard(session, account.store_id, account.subject_id, account.generation)
    except SubjectErased:
        raise SignInRefused from None
    current = await session.scalar(select(Account).where(Account.id == account.id).with_for_update())
    if current is None:
        raise SignInRefused
    await _bring_back(session, parts, current, letter)
    # Whoever changed the credentials meanwhile knows better.
    if renewed is not None and current.credentials == account.credentials:
        current.credentials = renewed
    family, secret = uuid4(), secrets.token_bytes(_SECRET_BYTES)
    started = AccountSession(
        id=uuid4(),
        store_id=account.store_id,
        account_id=account.id,
        subject_id=account.subject_id,
        generation=account.generation,
        family=family,
        current_hash=_hash(secret),
        started_at=parts.clock(),
        expires_at=parts.clock() + SESSION_LASTS,
    )
    session.add(started)
    await session.flush()
    return started, _refresh_token(family, secret)


async def _bring_back(
    session: AsyncSession, parts: Parts, account: Account, letter: Sealed[Letter] | None
) -> None:
    """A sign-in brings a closed account back, unless its time is over."""
    returning = judge_return(
        closed_at=account.closed_at, ends_at=account.ends_at, ended_at=account.ended_at, now=parts.clock()
    )
    if returning is Returning.OVER:
        raise SignInRefused
    if returning is Returning.REOPEN:
        if letter is None:
            # It was closed while the password was being checked: whoever means to come back asks again.
            raise Unavailable
        await reopening.reopen(session, account, letter, parts.clock())


def _refresh_token(family: UUID, secret: bytes) -> str:
    """64 characters: the family's id and the secret."""
    return base64.urlsafe_b64encode(family.bytes + secret).decode()


def _parsed(token: str) -> tuple[UUID, bytes]:
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except ValueError:
        raise RefreshRefused from None
    if len(raw) != _FAMILY_BYTES + _SECRET_BYTES:
        raise RefreshRefused
    return UUID(bytes=raw[:_FAMILY_BYTES]), _hash(raw[_FAMILY_BYTES:])


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


# --- Claims ----------------------------------------------------------------------------------------------


def _claims_of_customer(parts: Parts, signed_in: AccountSession) -> dict[str, Any]:
    return _claims(parts, signed_in, signed_in.store_id, Role.CUSTOMER) | {
        "subject": str(signed_in.subject_id),
        "generation": signed_in.generation,
    }


def _claims(parts: Parts, signed_in: AccountSession, store_id: UUID, role: Role) -> dict[str, Any]:
    issued_at = int(parts.clock().timestamp())
    return {
        "iss": parts.settings.issuer,
        "aud": AUDIENCE,
        "sub": str(signed_in.account_id),
        "client_id": AUDIENCE,
        "iat": issued_at,
        "exp": issued_at + int(ACCESS_TOKEN_LASTS.total_seconds()),
        "jti": str(uuid4()),
        "sid": str(signed_in.id),
        "store": str(store_id),
        "role": role,
    }


# --- Refresh ---------------------------------------------------------------------------------------------


async def refresh(parts: Parts, *, store_id: UUID, token: str, act_at: UUID | None) -> Tokens:
    """The next pair of tokens; for a merchant the access token may be for a store they are a member of.

    Of two racing refreshes the first wins and the other meets AlreadyRotated. A token used before that ends
    the session. Raises RefreshRefused, AlreadyRotated, NotFound at a store the person is no member of.
    """
    family, presented = _parsed(token)
    async with parts.database.session(store_id) as session:
        signed_in = await session.scalar(
            select(AccountSession)
            .where(AccountSession.store_id == store_id, AccountSession.family == family)
            .with_for_update()
        )
        if signed_in is None:
            raise RefreshRefused
        verdict = _judge(signed_in, presented, parts.clock())
        rotated = await _rotated(session, parts, signed_in, verdict, act_at)
    # The end of a session is committed before anybody is told.
    if rotated is None:
        raise RefreshRefused
    claims, secret = rotated
    return Tokens(await parts.keys.sign(claims), _refresh_token(family, secret))


async def _rotated(
    session: AsyncSession, parts: Parts, signed_in: AccountSession, verdict: Refresh, act_at: UUID | None
) -> tuple[dict[str, Any], bytes] | None:
    """The claims and the secret that come next; none for a reused token, whose session ends."""
    match verdict:
        case Refresh.OVER:
            raise RefreshRefused
        case Refresh.RACED:
            raise AlreadyRotated
        case Refresh.REUSED:
            signed_in.revoked_at = parts.clock()
            return None
        case Refresh.ROTATE:
            claims = await _claims_at(session, parts, signed_in, act_at)
            secret = secrets.token_bytes(_SECRET_BYTES)
            signed_in.previous_hash, signed_in.current_hash = signed_in.current_hash, _hash(secret)
            signed_in.rotated_at = parts.clock()
            return claims, secret
        case _:
            assert_never(verdict)


def _judge(signed_in: AccountSession, presented: bytes, now: datetime) -> Refresh:
    return judge_refresh(
        presented,
        current=signed_in.current_hash,
        previous=signed_in.previous_hash,
        rotated_at=signed_in.rotated_at,
        expires_at=signed_in.expires_at,
        revoked_at=signed_in.revoked_at,
        now=now,
    )


async def _claims_at(
    session: AsyncSession, parts: Parts, signed_in: AccountSession, act_at: UUID | None
) -> dict[str, Any]:
    if act_at is None:
        return _claims_of_customer(parts, signed_in)
    await switch_store(session, act_at)
    role = await session.scalar(
        select(Membership.role).where(
            Membership.store_id == act_at, Membership.account_id == signed_in.account_id
        )
    )
    await switch_store(session, signed_in.store_id)
    if role is None:
        raise NotFound
    return _claims(parts, signed_in, act_at, Role(role))


# --- Sessions --------------------------------------------------------------------------------------------


async def sessions_of(
    session: AsyncSession, *, caller: Caller, now: datetime, after: tuple[datetime, UUID] | None, limit: int
) -> list[AccountSession]:
    """The caller's sessions that still live, newest first; `after` is the start and the id of the last one seen."""
    statement = _living(caller, now).order_by(AccountSession.started_at.desc(), AccountSession.id.desc())
    if after is not None:
        started_at, session_id = after
        statement = statement.where(
            or_(
                AccountSession.started_at < started_at,
                and_(AccountSession.started_at == started_at, AccountSession.id < session_id),
            )
        )
    return list((await session.scalars(statement.limit(limit))).all())


async def sign_out(session: AsyncSession, *, caller: Caller, session_id: UUID, now: datetime) -> None:
    """End a session: its refresh token dies at once, its access token within minutes. Raises NotFound."""
    ended = await session.scalar(
        update(AccountSession)
        .where(
            AccountSession.store_id == caller.store_id,
            AccountSession.account_id == caller.account_id,
            AccountSession.id == session_id,
            AccountSession.revoked_at.is_(None),
            AccountSession.expires_at > now,
        )
        .values(revoked_at=now)
        .returning(AccountSession.id)
    )
    if ended is None:
        raise NotFound


def _living(caller: Caller, now: datetime) -> Any:
    return select(AccountSession).where(
        AccountSession.store_id == caller.store_id,
        AccountSession.account_id == caller.account_id,
        AccountSession.revoked_at.is_(None),
        AccountSession.expires_at > now,
    )
