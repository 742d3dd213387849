"""Requests by whoever is not signed in: a form of anybody, an agent's, and what somebody of the store wrote down.

Of a form nobody learns whether its person is known, has a request already, or was erased: whatever becomes of it,
the same was sealed before, and the same is answered. What there is to say is said by mail, to the person alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common import mail, throttle
from libs.common.db import Database
from libs.common.mail import RequestLetter
from libs.common.personal.data import Sealed
from libs.common.personal.vault import SealedFor, Vault, normalise
from libs.common.personal.vocabulary import Retention
from libs.common.stores import known_store
from libs.common.throttle import Bound
from services.privacy.asked import Asked
from services.privacy.domain.problems import ErasureUnderWay
from services.privacy.domain.verification import Way
from services.privacy.endings import doom
from services.privacy.kinds import AgentContact
from services.privacy.policies import policy_of
from services.privacy.service import opening
from services.privacy.service.documents import Uploaded, attach, sealed_document
from services.privacy.service.opening import Asking
from services.privacy.settings import Settings

_HOUR = timedelta(hours=1)
_UNTIL_SENT = timedelta(days=1)
"""How long the key of a mail to an agent is left alone, where nothing else lies under it."""


@dataclass(frozen=True, slots=True, repr=False)
class Agent:
    """Who asks on somebody's behalf, and the authorisation that the person signed."""

    name: str
    email: str
    authorisation: bytes | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Form:
    """What somebody filled in. `language` is that of the mails; the store's without one."""

    asked: Asked
    email: str
    language: str | None = None
    order_number: str | None = None
    agent: Agent | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Prepared:
    """A form with everything sealed that any outcome needs."""

    asking: Asking
    email_index: bytes
    agent_index: bytes | None
    acknowledgement: Sealed[RequestLetter] | None
    authorisation: Uploaded | None


# --- Before the transaction ------------------------------------------------------------------------------


async def admitted(
    database: Database, vault: Vault, settings: Settings, *, store_id: UUID, address: str, now: datetime
) -> tuple[str, str]:
    """The store's name and language. Raises NotFound, TooManyAttempts when the sender's network sends too many."""
    async with database.session(store_id) as session:
        store = await known_store(session, store_id)
        language = (await policy_of(session, store_id)).language
    key = await vault.blind_index(store_id, "form-address", throttle.network(address))
    bound = Bound(key, settings.forms_per_address, _HOUR)
    await throttle.count_or_refuse(database, store_id, [bound], now)
    return store.name, language


async def prepared(vault: Vault, form: Form, *, store_id: UUID, store: str, language: str) -> Prepared:
    """Everything that is sealed for the form. Raises SubjectErased, KeyringUnavailable.

    Mail goes to the address in the form that the person is derived from: of two ways to write it, one is theirs.
    """
    email, language, agent = normalise(form.email), form.language or language, form.agent
    subject_id = await vault.subject_id(store_id, email)
    contact = agent and AgentContact.model_validate(
        {"name": agent.name, "email": agent.email, "language": language}
    )
    asking = await opening.sealed(
        vault,
        store_id=store_id,
        subject_id=subject_id,
        asked=form.asked,
        email=email,
        language=language,
        way=Way.AGENT if agent else Way.FORM,
        order_number=form.order_number,
        agent=contact,
        begin=True,
    )
    letter, authorisation = None, None
    if agent is not None:
        letter = (await _acknowledgement(vault, asking, agent, store=store, language=language)).box
        if agent.authorisation is not None:
            authorisation = await sealed_document(
                vault, store_id=store_id, subject_id=subject_id, content=agent.authorisation
            )
    return Prepared(
        asking=asking,
        email_index=await vault.blind_index(store_id, "email", email),
        agent_index=await vault.blind_index(store_id, "email", agent.email) if agent else None,
        acknowledgement=letter,
        authorisation=authorisation,
    )


async def _acknowledgement(
    vault: Vault, asking: Asking, agent: Agent, *, store: str, language: str
) -> SealedFor[RequestLetter]:
    """Sent whatever becomes of the form, or an agent would learn from it who has a request already."""
    letter = RequestLetter(
        to=agent.email, template="agent-request-received", language=language, values={"store": store}
    )
    return await vault.seal(
        letter, store_id=asking.store_id, subject_id=asking.subject_id, bucket=str(asking.id)
    )


# --- In the transaction ----------------------------------------------------------------------------------


async def take(
    session: AsyncSession, form: Prepared, *, mails_per_person: int, expected: Iterable[str], now: datetime
) -> None:
    """Open the request or join the one that is open, unless its person was written to too often. Says nothing of it.

    Raises SubjectErased when an erasure came between.
    """
    asking = form.asking
    over = await throttle.count(session, asking.store_id, _mails(form, mails_per_person), now)
    request, is_new = None, False
    if b"form" + form.email_index not in over:
        request, is_new = await _opened(session, asking, expected=expected, now=now)
    if form.authorisation is not None and request is not None and is_new:
        await attach(session, request, form.authorisation, now=now)
    told = form.acknowledgement is not None and not over
    if told and form.acknowledgement is not None:
        person: dict[str, Any] = {
            "store_id": asking.store_id,
            "subject_id": asking.subject_id,
            "generation": asking.generation,
        }
        mail.post(session, form.acknowledgement, **person)
    if not is_new:
        await discard(session, form, at=now + _UNTIL_SENT if told else now)


async def discard(session: AsyncSession, form: Prepared, *, at: datetime) -> None:
    """Nothing lies under the keys that were made for the form: they go."""
    asking = form.asking
    await doom(session, asking, Retention.REQUEST, asking.id, at=at)
    if form.authorisation is not None:
        await doom(session, asking, Retention.VERIFICATION, form.authorisation.id, at=at)


async def _opened(
    session: AsyncSession, asking: Asking, *, expected: Iterable[str], now: datetime
) -> tuple[opening.Opened | None, bool]:
    try:
        return await opening.open_request(session, asking, expected=expected, now=now)
    except ErasureUnderWay:
        # Their own mail tells them when it is done.
        return None, False


def _mails(form: Prepared, most: int) -> list[Bound]:
    """One more form for this address; and, of an agent, by that one."""
    bounds = [Bound(b"form" + form.email_index, most, _HOUR)]
    if form.agent_index is not None:
        bounds.append(Bound(b"agent" + form.agent_index, most * 4, _HOUR))
    return bounds
