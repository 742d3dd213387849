"""Who is one person: subjects that were found to be the same are joined, and what is under way goes on over them all.

Whoever opens a request meets whoever joins its person on the lock that writers and erasures meet on: a request either
is there when its person grows, or is opened after it. What is known here is known nowhere else, and an erasure takes
it along.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
from sqlalchemy import Row, delete, insert, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Query
from libs.common.events.privacy import Life
from libs.common.personal.errors import SubjectErased
from libs.common.personal.tombstones import erased_among, hold_off
from services.privacy.domain.problems import TooManySubjects
from services.privacy.domain.rights import Law, Right
from services.privacy.domain.states import UNDECIDED, State
from services.privacy.domain.verification import Way
from services.privacy.engine import decisions
from services.privacy.engine.phases import begin, turn_back
from services.privacy.engine.tasks import COLUMNS, also_of, is_part, lives_of, verb_of
from services.privacy.evidence.entries import Noted, Step, note
from services.privacy.models import PersonSubject, Request
from services.privacy.policies import policy_of

SUBJECTS = 20
"""A person has at most so many at one store: each makes every task about them longer."""


# --- Who belongs together --------------------------------------------------------------------------------

_OTHERS = """
    SELECT other.subject_id, other.generation FROM person_subject AS one
    JOIN person_subject AS other USING (store_id, person_id)
    WHERE one.store_id = :store_id AND (one.subject_id, one.generation) = (:subject_id, :generation)
        AND other.subject_id <> one.subject_id
    ORDER BY other.subject_id
"""
_READ = Query(_OTHERS)
_HOLD = Query(f"{_OTHERS} FOR UPDATE")


async def others(session: AsyncSession, store_id: UUID, life: Life, *, hold: bool = False) -> list[Life]:
    """The other subjects of a person. `hold`: nobody else opens a request for any of them until the session ends."""
    rows = await (_HOLD if hold else _READ).rows(session, store_id=store_id, **life.model_dump())
    return [Life(subject_id=row.subject_id, generation=row.generation) for row in rows]


def of_person(store_id: UUID, life: Life) -> Any:
    """In SQL, that a request is of the person whose subject this is, by whichever of their subjects."""
    person = select(PersonSubject.person_id).where(
        PersonSubject.store_id == store_id, among(PersonSubject, [life])
    )
    subjects = select(PersonSubject.subject_id, PersonSubject.generation).where(
        PersonSubject.store_id == store_id, PersonSubject.person_id.in_(person)
    )
    return among(Request, [life]) | tuple_(Request.subject_id, Request.generation).in_(subjects)


def among(table: type[PersonSubject] | type[Request], lives: Iterable[Life]) -> Any:
    """In SQL, that a row is of one of these subjects."""
    pairs = [(life.subject_id, life.generation) for life in lives]
    return tuple_(table.subject_id, table.generation).in_(pairs)


# --- Joining and separating ------------------------------------------------------------------------------

# Rare, and what it changes is read by many: a store has one at a time.
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('people of ' || :store_id, 0))")


async def join(
    session: AsyncSession, store_id: UUID, one: Life, other: Life, *, now: datetime, expected: Sequence[str]
) -> bool:
    """Two subjects are one person, with all that either has. Returns whether that is new.

    Raises SubjectErased where one of the two is over, TooManySubjects.
    """
    await session.execute(_ONE_AT_A_TIME, {"store_id": str(store_id)})
    mine = [one, *await others(session, store_id, one)]
    if other in mine:
        return False
    lives = [*mine, other, *await others(session, store_id, other)]
    if len(lives) > SUBJECTS:
        raise TooManySubjects(most=SUBJECTS)
    await _hold_off(session, store_id, lives)
    await check_living(session, store_id, [one, other])
    await _forget(session, store_id, lives)
    person = {"store_id": store_id, "person_id": uuid4(), "joined_at": now}
    await session.execute(insert(PersonSubject), [person | life.model_dump() for life in lives])
    await _regard(session, store_id, lives, now=now, expected=expected)
    await _carry_on(session, store_id, lives, now=now, expected=expected)
    return True


async def separate(
    session: AsyncSession, store_id: UUID, life: Life, *, now: datetime, expected: Sequence[str]
) -> bool:
    """The subject is somebody else after all: what is still to be done is no longer about both. What was done, and an
    erasure that has begun, is not undone. Returns whether they were one.
    """
    await session.execute(_ONE_AT_A_TIME, {"store_id": str(store_id)})
    rest = await others(session, store_id, life)
    if not rest:
        return False
    await _hold_off(session, store_id, [life, *rest])
    # Whoever is left with one subject needs no row.
    await _forget(session, store_id, [life, *rest] if len(rest) == 1 else [life])
    await _regard(session, store_id, [life], now=now, expected=expected)
    await _regard(session, store_id, rest, now=now, expected=expected)
    return True


async def _hold_off(session: AsyncSession, store_id: UUID, lives: Sequence[Life]) -> None:
    await hold_off(session, [(store_id, life.subject_id, life.generation) for life in lives])


async def _forget(session: AsyncSession, store_id: UUID, lives: Sequence[Life]) -> None:
    await session.execute(
        delete(PersonSubject).where(PersonSubject.store_id == store_id, among(PersonSubject, lives))
    )


async def check_living(session: AsyncSession, store_id: UUID, lives: Sequence[Life]) -> None:
    """An erasure that has not ended can go on over more; one that has ended is not taken up again."""
    erased = await erased_among(session, [(store_id, life.subject_id, life.generation) for life in lives])
    for _, subject_id, generation in erased:
        life = Life(subject_id=subject_id, generation=generation)
        if not any(_runs(one) for one in await _open(session, store_id, [life]) if _is_whole_erasure(one)):
            raise SubjectErased


# --- What is under way -----------------------------------------------------------------------------------

_OPEN = text(f"""
    SELECT {COLUMNS} FROM request
    WHERE store_id = :store_id AND state NOT IN ('completed', 'refused', 'cancelled')
        AND (subject_id, generation) IN (
            SELECT * FROM unnest(CAST(:subjects AS uuid[]), CAST(:generations AS bigint[])))
    ORDER BY id FOR UPDATE
""")  # noqa: S608 - a constant of the engine
_ABOUT = text(f"""
    UPDATE request SET also = CAST(:also AS jsonb), version = version + 1, round = round + :rounds
    WHERE id = :id AND store_id = :store_id RETURNING {COLUMNS}
""")  # noqa: S608 - a constant of the engine


async def _open(session: AsyncSession, store_id: UUID, lives: Sequence[Life]) -> Sequence[Row[Any]]:
    return (await session.execute(_OPEN, {"store_id": store_id, **_columns(lives)})).all()


def _columns(lives: Sequence[Life]) -> dict[str, list[Any]]:
    return {
        "subjects": [life.subject_id for life in lives],
        "generations": [life.generation for life in lives],
    }


async def _regard(
    session: AsyncSession, store_id: UUID, lives: Sequence[Life], *, now: datetime, expected: Sequence[str]
) -> None:
    """What is open of these subjects is about all of them and nobody else; who was asked is asked anew."""
    for request in await _absorb(session, await _open(session, store_id, lives), now=now):
        also = [life for life in lives if life.subject_id != request.subject_id]
        if not _stays(request, also):
            await _widen(session, request, also, expected=expected)


def _stays(request: Row[Any], also: Sequence[Life]) -> bool:
    """Whether nothing changes, or an erasure would stop halfway for somebody whose keys may be gone already."""
    known = set(also_of(request))
    return known == set(also) or (
        _runs(request) and request.claim == Right.ERASURE and not known <= set(also)
    )


async def _widen(
    session: AsyncSession, request: Row[Any], also: Sequence[Life], *, expected: Sequence[str]
) -> None:
    state = State(request.state)
    if state is State.CHECKING:
        await turn_back(session, request.store_id, [request])
        state = State.RUNNING
    is_asked = verb_of(Right(request.claim), state) is not None and (
        state is not State.VERIFYING or request.order_number is not None
    )
    about = {
        "also": orjson.dumps([life.model_dump(mode="json") for life in also]).decode() if also else None,
        "rounds": int(is_asked),
        "id": request.id,
        "store_id": request.store_id,
    }
    changed = (await session.execute(_ABOUT, about)).one()
    if is_asked:
        await note(session, request.store_id, [Noted(request.id, Step.ANEW, {"round": changed.round})])
        await begin(session, request.store_id, [changed], state, expected=expected)


async def _absorb(session: AsyncSession, requests: Sequence[Row[Any]], *, now: datetime) -> list[Row[Any]]:
    """Of several erasures of everything the furthest goes on, for all; whoever asked for another is told so."""
    alike = [one for one in requests if _is_whole_erasure(one) and one.way != Way.OPENDSR]
    erasures = sorted(alike, key=_furthest_first)
    for one in erasures[1:]:
        await decisions.absorb(session, one, now=now)
    return [one for one in requests if one not in erasures[1:]]


def _furthest_first(request: Row[Any]) -> tuple[Any, ...]:
    return not _runs(request), State(request.state) is not State.DECIDING, request.opened_at, request.id


def _runs(request: Row[Any]) -> bool:
    return State(request.state) not in UNDECIDED


def _is_whole_erasure(request: Row[Any]) -> bool:
    return request.claim == Right.ERASURE and not is_part(request)


# --- What was carried out --------------------------------------------------------------------------------

_CARRIED_OUT = text("""
    SELECT subject_id, generation, also, claim, law, purpose, way, proofs FROM request
    WHERE store_id = :store_id AND state = 'completed'
        AND claim IN ('restriction', 'restriction-lifting', 'objection', 'consent-withdrawal')
        AND (subject_id, generation) IN (
            SELECT * FROM unnest(CAST(:subjects AS uuid[]), CAST(:generations AS bigint[])))
    ORDER BY completed_at, id
""")


async def _carry_on(
    session: AsyncSession, store_id: UUID, lives: Sequence[Life], *, now: datetime, expected: Sequence[str]
) -> None:
    """Whoever is on hold, or has objected, is and has so with all that is theirs."""
    rows = await session.execute(_CARRIED_OUT, {"store_id": store_id, **_columns(lives)})
    standing: dict[tuple[str, str | None], dict[Life, Row[Any]]] = {}
    for row in rows:
        for life in lives_of(row):
            if row.claim == Right.LIFTING:
                standing.get((Right.RESTRICTION, None), {}).pop(life, None)
            else:
                standing.setdefault((row.claim, row.purpose), {})[life] = row
    for covered in standing.values():
        missing = [life for life in lives if life not in covered]
        if covered and missing:
            await _repeat(
                session, store_id, next(iter(covered.values())), missing, now=now, expected=expected
            )


async def _repeat(
    session: AsyncSession,
    store_id: UUID,
    carried_out: Row[Any],
    lives: Sequence[Life],
    *,
    now: datetime,
    expected: Sequence[str],
) -> None:
    """The same request for subjects that were found since. Nobody is written to: they were when it was decided."""
    first, *also = lives
    stands = decisions.carried_on(
        await policy_of(session, store_id), Right(carried_out.claim), Law(carried_out.law), now=now
    )
    values = {
        "id": uuid4(),
        "store_id": store_id,
        **first.model_dump(),
        "also": [life.model_dump(mode="json") for life in also] or None,
        "claim": carried_out.claim,
        "law": carried_out.law,
        "purpose": carried_out.purpose,
        "way": carried_out.way,
        "proofs": carried_out.proofs,
        "opened_at": now,
        **stands,
    }
    made = await session.scalar(upsert(Request).values(values).on_conflict_do_nothing().returning(Request))
    if made is not None:
        facts = {name: values[name] for name in ("law", "purpose", "way")} | {"right": made.claim}
        opened = Noted(made.id, Step.OPENED, facts)
        await note(session, store_id, [opened, *decisions.verified(made.id, stands)], now=now)
        await begin(session, store_id, [made], State.RUNNING, expected=expected)
