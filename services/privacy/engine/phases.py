"""The phases of requests: what everybody is asked when one begins, in a few statements for any number of requests.

A request's row is locked before anything of it is read or changed, in the order of ids, so that of two last
answers one sees the other, and no two batches wait for each other.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Query, ring_after_commit
from libs.common.events import Event
from libs.common.events.privacy import KeysChanged, KeysDestroyed, Verb
from libs.common.outbox import publish_all
from libs.common.personal.vocabulary import Clock
from services.privacy.domain.rights import Right
from services.privacy.domain.states import FIRST_PAUSE, KEYRING, LONGEST_PAUSE, PART_PAUSE, State
from services.privacy.engine.tasks import (
    COLUMNS,
    IS_UNANSWERED,
    RUNS,
    SOURCE,
    ids_of,
    is_led,
    is_part,
    lives_of,
    task,
    verb_of,
)
from services.privacy.models import Request
from services.privacy.recipients.speaking import PARTIAL_PROTOCOLS, TOLD_OUTSIDE
from services.privacy.retention.clocks import start, start_of_own
from services.privacy.settings import present

logger = logging.getLogger(__name__)

KEYRING_TASKS = "keyring_tasks"
"""NOTIFY channel: the keyring is to be asked."""
NOTICES = "notices"
"""NOTIFY channel: a mail is to be written."""
DELIVERIES = "deliveries"
"""NOTIFY channel: something is to be sent outside."""
PAUSES = {"first": FIRST_PAUSE.total_seconds(), "longest": LONGEST_PAUSE.total_seconds()}
ANNOUNCED: Mapping[Right, str] = {
    **{right: f"{right}-done" for right in Right},
    Right.ACCESS: "export-ready",
    Right.PORTABILITY: "export-ready",
    Right.EXPLANATION: "explanation-ready",
}
"""The mail that says that it was."""


# --- Beginning -------------------------------------------------------------------------------------------

NOTE_ISSUED = """
    INSERT INTO evidence_pending (store_id, request_id, kind, facts)
    SELECT store_id, request_id, 'issued',
        jsonb_build_object('verb', verb, 'participants', jsonb_agg(participant ORDER BY participant))
    FROM asked GROUP BY store_id, request_id, verb
"""
"""The evidence of tasks that were just written; `asked` has their request, store, participant and verb."""
# Whoever announced itself and whoever is expected: one row each, in the transaction that begins the phase.
_EXPECT = Query(f"""
    WITH asked AS (
        INSERT INTO task AS task (request_id, participant, verb, store_id, next_issue_at, asked_at)
        SELECT request.id, name, CAST(:verb AS text), request.store_id, CASE
            WHEN name = 'keyring' THEN greatest(now(), request.begins_at)
            WHEN NOT :led THEN now() + make_interval(secs => :first) END, CASE
            WHEN name = 'keyring' THEN greatest(now(), request.begins_at)
            WHEN NOT :led THEN now() END
        FROM request,
            (SELECT name FROM participant UNION SELECT unnest(CAST(:expected AS text[]))) AS everybody (name)
        WHERE request.id = ANY(CAST(:ids AS uuid[])) AND request.store_id = :store_id
        ON CONFLICT (request_id, participant, verb) DO UPDATE SET
            state = 'waiting', answer = NULL, answered_at = NULL, next_issue_at = excluded.next_issue_at,
            asked_at = excluded.asked_at
        RETURNING task.request_id, task.store_id, task.participant, task.verb
    ){NOTE_ISSUED}
""")  # noqa: S608 - a constant of this module
_HAS_A_PART = "recipient.state <> 'disabled' AND CAST(:verb AS text) = ANY(recipient.verbs)"
# To plan the two statements after this one takes longer than all else of a request's beginning, and mostly there is
# nobody whom they would find.
_CONCERNED = Query(f"""
    SELECT CAST(:verb AS text) = 'erase' AND EXISTS (SELECT FROM participant WHERE prepares) AS inside,
        EXISTS (SELECT FROM recipient WHERE store_id = :store_id AND {_HAS_A_PART}) AS outside
""")  # noqa: S608 - a constant of this module
# Of an erasure: who must tell somebody while what names the person still opens. The keyring waits for them.
_EXPECT_PREPARATIONS = Query(f"""
    WITH asked AS (
        INSERT INTO task AS task (request_id, participant, verb, store_id, next_issue_at, asked_at)
        SELECT request.id, name, 'prepare', request.store_id, now() + make_interval(secs => :first), now()
        FROM request, participant
        WHERE request.id = ANY(CAST(:ids AS uuid[])) AND request.store_id = :store_id AND prepares
        ON CONFLICT (request_id, participant, verb) DO UPDATE SET
            state = 'waiting', answer = NULL, answered_at = NULL, next_issue_at = excluded.next_issue_at,
            asked_at = excluded.asked_at
        RETURNING task.request_id, task.store_id, task.participant, task.verb
    ), waiting AS (
        UPDATE task SET next_issue_at = NULL, asked_at = NULL FROM asked
        WHERE task.request_id = asked.request_id AND task.participant = 'keyring' AND task.verb = 'erase'
    ), noted AS ({NOTE_ISSUED})
    SELECT request_id, array_agg(participant ORDER BY participant) AS participants FROM asked GROUP BY request_id
""")  # noqa: S608 - a constant of this module
# Whoever outside is to be told or asked has a part as well, and a delivery that waits until everybody has said by what
# the person is known there. What would be gone by then, or be called otherwise, waits for that too.
_EXPECT_RECIPIENTS = Query(f"""
    WITH theirs AS (
        SELECT request.id AS request_id, request.store_id, request.subject_id, request.generation, request.round,
            recipient.id AS recipient_id, 'recipient-' || recipient.id AS participant
        FROM request JOIN recipient ON recipient.store_id = request.store_id
        WHERE request.id = ANY(CAST(:ids AS uuid[])) AND request.store_id = :store_id
            AND {_HAS_A_PART}
            AND (request.claim <> 'erasure' OR coalesce(request.purpose, request.category) IS NULL
                OR recipient.protocol = ANY(CAST(:partial AS text[])))
    ), told AS (
        INSERT INTO task AS task (request_id, participant, verb, store_id, recipient_id)
        SELECT request_id, participant, CAST(:verb AS text), store_id, recipient_id FROM theirs
        ON CONFLICT (request_id, participant, verb) DO UPDATE SET
            state = 'waiting', answer = NULL, answered_at = NULL, next_issue_at = NULL, asked_at = NULL
        RETURNING task.request_id, task.store_id, task.participant, task.verb
    ), replaced AS (
        UPDATE delivery SET state = 'void', next_try_at = NULL FROM theirs
        WHERE delivery.request_id = theirs.request_id AND delivery.recipient_id = theirs.recipient_id
            AND delivery.what = CAST(:verb AS text) AND delivery.round < theirs.round
    ), deliveries AS (
        INSERT INTO delivery
            (id, store_id, recipient_id, what, request_id, subject_id, generation, round, state, made_at)
        SELECT gen_random_uuid(), store_id, recipient_id, CAST(:verb AS text), request_id, subject_id, generation,
            round, 'collecting', now()
        FROM theirs ON CONFLICT DO NOTHING
    ), referring AS (
        INSERT INTO task AS task (request_id, participant, verb, store_id, next_issue_at, asked_at)
        SELECT request_id, name, 'refer', store_id, now() + make_interval(secs => :first), now()
        FROM (SELECT DISTINCT request_id, store_id FROM theirs) AS concerned,
            (SELECT name FROM participant UNION SELECT unnest(CAST(:expected AS text[]))) AS everybody (name)
        ON CONFLICT (request_id, participant, verb) DO UPDATE SET
            state = 'waiting', answer = NULL, answered_at = NULL, next_issue_at = excluded.next_issue_at,
            asked_at = excluded.asked_at
        RETURNING task.request_id, task.store_id, task.participant, task.verb
    ), waiting AS (
        UPDATE task SET next_issue_at = NULL, asked_at = NULL FROM referring
        WHERE task.request_id = referring.request_id AND task.recipient_id IS NULL
            AND (task.verb = 'rectify' OR task.participant = 'keyring' AND task.verb = 'erase')
    ), asked AS (
        SELECT * FROM told UNION SELECT * FROM referring
    ), noted AS ({NOTE_ISSUED})
    SELECT DISTINCT request_id FROM referring
""")  # noqa: S608 - a constant of this module
# Who was asked to erase is asked whether it did, but for whom somebody else answered, who is told outside, and who left
# since: nobody is there to look again.
_ERASED_ITSELF = """verb = 'erase' AND state <> 'settled' AND recipient_id IS NULL
            AND NOT EXISTS (SELECT FROM departure WHERE name = participant AND readmitted_at IS NULL)"""
_EXPECT_CHECKS = text(f"""
    WITH asked AS (
        INSERT INTO task (request_id, participant, verb, store_id, next_issue_at, asked_at)
        SELECT request_id, participant, 'verify-erased', store_id,
            now() + CASE WHEN participant = 'keyring' THEN interval '0' ELSE make_interval(secs => :first) END, now()
        FROM task WHERE request_id = ANY(CAST(:ids AS uuid[])) AND {_ERASED_ITSELF} AND store_id = :store_id
        RETURNING request_id, store_id, participant, verb
    ){NOTE_ISSUED}
""")  # noqa: S608 - a constant of this module


# What was opened before must be forgotten, and what was under way have arrived, before anybody looks; the keyring,
# which lets the old keys go, comes last.
_EXPECT_CHECKS_OF_PARTS = text(f"""
    WITH asked AS (
        INSERT INTO task (request_id, participant, verb, store_id, next_issue_at, asked_at)
        SELECT request_id, participant, 'verify-erased', store_id,
            CASE WHEN participant <> 'keyring' THEN now() + make_interval(secs => :part) END,
            CASE WHEN participant <> 'keyring' THEN now() + make_interval(secs => :part) END
        FROM task WHERE request_id = ANY(CAST(:ids AS uuid[])) AND {_ERASED_ITSELF} AND store_id = :store_id
        RETURNING request_id, store_id, participant, verb
    ){NOTE_ISSUED}
""")  # noqa: S608 - a constant of this module


async def begin(
    session: AsyncSession,
    store_id: UUID,
    requests: Sequence[Row[Any] | Request],
    state: State,
    *,
    expected: Iterable[str],
) -> None:
    """Ask everybody what the phase asks, or the keyring first. The requests are in `state` already."""
    by_right: dict[Right, list[Row[Any] | Request]] = defaultdict(list)
    for request in requests:
        by_right[Right(request.claim)].append(request)
    for right, of_right in by_right.items():
        verb = verb_of(right, state)
        if verb is Verb.VERIFY_ERASED:
            await _begin_checks(session, store_id, of_right)
        elif verb is not None:
            await _begin(session, store_id, of_right, verb, led=is_led(right, state), expected=expected)


async def _begin(
    session: AsyncSession,
    store_id: UUID,
    requests: Sequence[Row[Any] | Request],
    verb: Verb,
    *,
    led: bool,
    expected: Iterable[str],
) -> None:
    values = {"ids": ids_of(requests), "store_id": store_id, **PAUSES}
    expected = list(expected)
    everybody = [*expected, KEYRING] if led else expected
    await _EXPECT.rows(session, **values, verb=verb, led=led, expected=everybody)
    referring: set[UUID] = set()
    if verb in TOLD_OUTSIDE | {Verb.ERASE}:
        [concerned] = await _CONCERNED.rows(session, store_id=store_id, verb=verb)
        if concerned.inside:
            await _begin_preparations(session, store_id, requests, values)
        if concerned.outside:
            referring = await _begin_references(
                session, store_id, requests, verb, values | {"expected": expected}
            )
    if led:
        ring_after_commit(session, KEYRING_TASKS)
    else:
        ready = [one for one in requests if verb is not Verb.RECTIFY or one.id not in referring]
        await publish_all(session, [task(one, verb) for one in ready], store_id=store_id, source=SOURCE)


async def _begin_preparations(
    session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any] | Request], values: Mapping[str, Any]
) -> None:
    rows = await _EXPECT_PREPARATIONS.rows(session, **values)
    asked = {row.request_id: row.participants for row in rows}
    tasks = [task(one, Verb.PREPARE, participants=asked[one.id]) for one in requests if one.id in asked]
    await publish_all(session, tasks, store_id=store_id, source=SOURCE)


async def _begin_references(
    session: AsyncSession,
    store_id: UUID,
    requests: Sequence[Row[Any] | Request],
    verb: Verb,
    values: Mapping[str, Any],
) -> set[UUID]:
    """Ask everybody by what outsiders know the person, where outsiders have a part. Returns the requests of that."""
    wanted = {**values, "verb": verb, "partial": PARTIAL_PROTOCOLS}
    referring = {row.request_id for row in await _EXPECT_RECIPIENTS.rows(session, **wanted)}
    asked = [task(one, Verb.REFER) for one in requests if one.id in referring]
    await publish_all(session, asked, store_id=store_id, source=SOURCE)
    return referring


_PREPARED = text(f"""
    UPDATE task SET next_issue_at = greatest(now(), request.begins_at),
        asked_at = greatest(now(), request.begins_at)
    FROM request
    WHERE task.request_id = request.id AND request.id = ANY(CAST(:ids AS uuid[])) AND task.store_id = :store_id
        AND task.participant = 'keyring' AND task.verb = 'erase' AND task.state = 'waiting'
        AND NOT EXISTS (SELECT FROM task AS other
            WHERE other.request_id = request.id AND other.verb IN ('prepare', 'refer') AND other.{IS_UNANSWERED})
""")  # noqa: S608 - a constant of this package
_REFERRED = text(f"""
    WITH referred AS (
        SELECT id, greatest(now(), begins_at) AS due FROM request
        WHERE id = ANY(CAST(:ids AS uuid[])) AND store_id = :store_id
            AND EXISTS (SELECT FROM task WHERE request_id = request.id AND verb = 'refer')
            AND NOT EXISTS (SELECT FROM task WHERE request_id = request.id AND verb = 'refer' AND {IS_UNANSWERED})
    ), due AS (
        UPDATE delivery SET state = 'sending', next_try_at = due FROM referred
        WHERE request_id = referred.id AND delivery.state = 'collecting'
        RETURNING request_id, recipient_id, what, next_try_at
    ), asked AS (
        UPDATE task SET next_issue_at = due.next_try_at, asked_at = due.next_try_at FROM due
        WHERE task.request_id = due.request_id AND task.recipient_id = due.recipient_id AND task.verb = due.what
            AND task.state = 'waiting'
    ), issued AS (
        UPDATE task SET next_issue_at = now() + make_interval(secs => :first), asked_at = now() FROM referred
        WHERE request_id = referred.id AND verb = 'rectify' AND state = 'waiting' AND next_issue_at IS NULL
            AND recipient_id IS NULL
        RETURNING request_id
    )
    SELECT DISTINCT request_id FROM issued
""")  # noqa: S608 - a constant of this package


async def let_begin(session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any]]) -> None:
    """Where everybody who had to be told is told, it is the keyring's turn: what it destroys is gone. Where everybody
    has said by what the person is known outside, it is told there, and what waited for that is asked.
    """
    values = {"ids": ids_of(requests), "store_id": store_id, **PAUSES}
    await session.execute(_PREPARED, values)
    corrected = set((await session.scalars(_REFERRED, values)).all())
    asked = [task(one, Verb.RECTIFY) for one in requests if one.id in corrected]
    await publish_all(session, asked, store_id=store_id, source=SOURCE)
    for channel in (KEYRING_TASKS, DELIVERIES):
        ring_after_commit(session, channel)


async def _begin_checks(
    session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any] | Request]
) -> None:
    whole = [one for one in requests if not is_part(one)]
    parts = [one for one in requests if is_part(one)]
    if parts:
        later = {"ids": ids_of(parts), "store_id": store_id, "part": PART_PAUSE.total_seconds()}
        await session.execute(_EXPECT_CHECKS_OF_PARTS, later)
    if whole:
        await session.execute(_EXPECT_CHECKS, {"ids": ids_of(whole), "store_id": store_id, **PAUSES})
        ring_after_commit(session, KEYRING_TASKS)
        checks = [task(one, Verb.VERIFY_ERASED) for one in whole]
        await publish_all(session, checks, store_id=store_id, source=SOURCE)


_NOTE_RETIRED = text(f"""
    UPDATE request SET retired = (
        SELECT answer -> 'retired' FROM task
        WHERE task.request_id = request.id AND participant = 'keyring' AND verb = 'erase'
    )
    WHERE id = ANY(CAST(:ids AS uuid[])) AND store_id = :store_id
    RETURNING {COLUMNS}
""")  # noqa: S608 - a constant of this package
_NOTE_HELD = text(f"""
    UPDATE request SET held = (
        SELECT answer -> 'held' FROM task
        WHERE task.request_id = request.id AND participant = 'keyring' AND verb = 'erase'
    )
    WHERE id = ANY(CAST(:ids AS uuid[])) AND store_id = :store_id
    RETURNING {COLUMNS}
""")  # noqa: S608 - a constant of this package
_FIRST_ISSUED = text("""
    UPDATE task SET next_issue_at = now() + make_interval(secs => :first), asked_at = now()
    WHERE request_id = ANY(CAST(:ids AS uuid[])) AND verb = ANY(CAST(:verbs AS text[])) AND participant <> 'keyring'
        AND store_id = :store_id AND state = 'waiting' AND recipient_id IS NULL
""")


async def follow_keyring(session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any]]) -> None:
    """The keyring has done its part: everybody forgets the keys in memory, then does theirs."""
    if parts := [one for one in requests if is_part(one)]:
        noted = await session.execute(_NOTE_RETIRED, {"ids": ids_of(parts), "store_id": store_id})
        requests = [*(one for one in requests if not is_part(one)), *noted]
    if erased := [one for one in requests if one.claim == Right.ERASURE and not is_part(one)]:
        noted = await session.execute(_NOTE_HELD, {"ids": ids_of(erased), "store_id": store_id})
        others = [one for one in requests if one.claim != Right.ERASURE or is_part(one)]
        requests = [*others, *noted]
    verbs = [RUNS[Right(one.claim)] for one in requests]
    values = {"ids": ids_of(requests), "verbs": sorted(set(verbs)), "store_id": store_id, **PAUSES}
    await session.execute(_FIRST_ISSUED, values)
    events: list[Event] = [
        (KeysDestroyed if verb is Verb.ERASE and not is_part(one) else KeysChanged)(**life.model_dump())
        for one, verb in zip(requests, verbs, strict=True)
        for life in lives_of(one)
    ]
    events += [task(one, verb) for one, verb in zip(requests, verbs, strict=True)]
    await publish_all(session, events, store_id=store_id, source=SOURCE)


_LET_GO = text("""
    UPDATE task SET next_issue_at = now(), asked_at = now()
    WHERE request_id = ANY(CAST(:ids AS uuid[])) AND verb = 'verify-erased' AND participant = 'keyring'
        AND store_id = :store_id AND state = 'waiting' AND next_issue_at IS NULL
""")


async def let_go(session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any]]) -> None:
    """Nothing lies under the old keys any more: it is the keyring's turn."""
    await session.execute(_LET_GO, {"ids": ids_of(requests), "store_id": store_id})
    ring_after_commit(session, KEYRING_TASKS)


async def let_forget(session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any]]) -> None:
    """The old keys are gone: nobody goes on with what is in memory."""
    gone = [KeysDestroyed(**life.model_dump()) for one in requests for life in lives_of(one)]
    await publish_all(session, gone, store_id=store_id, source=SOURCE)


# --- Turning ---------------------------------------------------------------------------------------------

TURNED = ", ".join(
    f"request.{column}"
    for column in (
        *("id", "store_id", "claim", "law", "purpose", "category", "state", "ground", "agent"),
        *("received_at", "opened_at", "verified_at", "overdue_at"),
    )
)
NOTE_TURNED = """
    INSERT INTO evidence_pending (store_id, request_id, kind, at, facts)
    SELECT store_id, id, state, at, jsonb_strip_nulls(jsonb_build_object(
        'right', claim, 'law', law, 'purpose', purpose, 'category', category, 'ground', ground,
        'late', at >= overdue_at, 'verified', verified_at IS NOT NULL,
        'since', CASE law WHEN 'ccpa' THEN coalesce(received_at, opened_at) ELSE coalesce(verified_at, opened_at) END))
    FROM turned
"""
"""The evidence of a state that requests have entered, with what the figures of a year are computed from; `turned` has
the columns of TURNED, and `at`."""


def lapse() -> timedelta:
    """So long after the end of an erasure no memory holds an opened key any more: not before is it certified."""
    return timedelta(seconds=present().key_seconds)


# The end of a request supersedes what was still to be written about its beginning, and by what outsiders knew the
# person is of no more use. Whoever is erased leaves nothing that says which subjects were theirs, only that there were
# several.
_TURN = text(f"""
    WITH turned AS (
        UPDATE request SET state = CAST(:state AS text), version = version + 1,
            steps = steps || jsonb_build_array(jsonb_build_object('state', CAST(:state AS text), 'at', now())),
            completed_at = CASE WHEN :completed THEN now() END,
            watch = CASE WHEN NOT :completed THEN watch END, watch_at = CASE WHEN NOT :completed THEN watch_at END,
            several = :completed AND claim = 'erasure' AND coalesce(purpose, category) IS NULL AND also IS NOT NULL,
            also = CASE WHEN NOT :completed OR claim <> 'erasure' OR coalesce(purpose, category) IS NOT NULL
                THEN also END
        WHERE id = ANY(CAST(:ids AS uuid[])) AND store_id = :store_id
        RETURNING {TURNED}, now() AS at
    ), evidence AS ({NOTE_TURNED}    ), due AS (
        INSERT INTO certificate_due (request_id, store_id, due_at)
        SELECT id, store_id, now() + CASE claim WHEN 'erasure' THEN make_interval(secs => :lapse) ELSE interval '0' END
        FROM turned WHERE :completed
    ), superseded AS (
        DELETE FROM notice USING turned
        WHERE :completed AND notice.request_id = turned.id AND notice.due_at > now()
    ), told AS (
        DELETE FROM request_reference AS said USING turned WHERE :completed AND said.request_id = turned.id
    )
    INSERT INTO notice (store_id, request_id, template, reader, due_at)
    SELECT store_id, id, template, reader, now() FROM turned, LATERAL (VALUES
        (CAST(:announced AS jsonb) ->> claim, 'person', true), ('agent-request-completed', 'agent', agent IS NOT NULL)
    ) AS told (template, reader, wanted) WHERE :completed AND wanted
""")  # noqa: S608 - a constant of this module
_ANNOUNCED = orjson.dumps({right.value: template for right, template in ANNOUNCED.items()}).decode()


async def turn(session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any]], state: State) -> None:
    """Write the state and the step; whoever completes a request also lets its person know."""
    completed = state is State.COMPLETED
    await session.execute(
        _TURN,
        {
            "ids": ids_of(requests),
            "store_id": store_id,
            "state": state,
            "completed": completed,
            "announced": _ANNOUNCED,
            "lapse": lapse().total_seconds(),
        },
    )
    if completed:
        ended = datetime.now(UTC)
        await start(
            session,
            store_id,
            [start_of_own(one, Clock.REQUEST_ENDED, one.id, at=ended) for one in requests],
        )
        ring_after_commit(session, NOTICES)


# --- Again -----------------------------------------------------------------------------------------------

NEXT_ROUND = text("""
    WITH anew AS (
        UPDATE request SET round = round + 1 WHERE id = ANY(CAST(:ids AS uuid[])) AND store_id = :store_id
        RETURNING id, store_id, round
    )
    INSERT INTO evidence_pending (store_id, request_id, kind, facts)
    SELECT store_id, id, 'anew', jsonb_build_object('round', round) FROM anew
""")
# Who joined while it was checked has not been asked to erase yet.
_EXPECT_CHECKED = text("""
    INSERT INTO task (request_id, participant, verb, store_id)
    SELECT request_id, participant, 'erase', store_id FROM task
    WHERE request_id = ANY(CAST(:ids AS uuid[])) AND verb = 'verify-erased' AND store_id = :store_id
    ON CONFLICT DO NOTHING
""")
_DROP_CHECKS = text("""
    DELETE FROM task
    WHERE request_id = ANY(CAST(:ids AS uuid[])) AND verb = 'verify-erased' AND store_id = :store_id
""")
# An erasure begins again with the keys; an export is issued again to everybody, after a pause that grows. Whoever was
# answered for stays so, and who was told outside has been.
_WAIT_AGAIN = text("""
    UPDATE task SET state = 'waiting', answer = NULL, answered_at = NULL, attempts = task.attempts + 1,
        next_issue_at = CASE WHEN verb = 'export' OR participant = 'keyring'
            THEN now() + make_interval(secs => least(:longest, :first * 2 ^ least(request.round - 2, 20))) END,
        asked_at = CASE WHEN verb = 'export' OR participant = 'keyring' THEN now() END
    FROM request
    WHERE task.request_id = request.id AND request.id = ANY(CAST(:ids AS uuid[])) AND task.store_id = :store_id
        AND task.verb IN ('export', 'erase') AND task.state <> 'settled' AND task.recipient_id IS NULL
""")
# Whoever left hands over once more what is asked of it again, however long ago it left.
_HAND_OVER_AGAIN = text("""
    UPDATE departure SET handed_over_at = NULL WHERE readmitted_at IS NULL AND name IN (
        SELECT participant FROM task
        WHERE request_id = ANY(CAST(:ids AS uuid[])) AND store_id = :store_id AND state = 'waiting')
""")


async def turn_back(session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any]]) -> None:
    """What was being checked is to be done again, for more than was known."""
    await turn(session, store_id, requests, State.RUNNING)
    await session.execute(_DROP_CHECKS, {"ids": ids_of(requests), "store_id": store_id})


async def ask_anew(session: AsyncSession, store_id: UUID, requests: Sequence[Row[Any]]) -> None:
    """Another round: what was answered before does not count any more."""
    logger.warning("requests begin another round", extra={"count": len(requests)})
    values = {"ids": ids_of(requests), "store_id": store_id}
    await session.execute(NEXT_ROUND, values)
    await session.execute(_EXPECT_CHECKED, values)
    await session.execute(_DROP_CHECKS, values)
    await session.execute(_WAIT_AGAIN, {**values, **PAUSES})
    await session.execute(_HAND_OVER_AGAIN, values)
    ring_after_commit(session, KEYRING_TASKS)
