"""By what outsiders know the person of a request: what participants have said before anything of it was done."""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import Problem
from libs.common.events.privacy import Life, References, TaskAnswered
from libs.common.personal.data import Sealed
from libs.common.personal.errors import BoxDoesNotOpen, KeyDestroyed
from libs.common.personal.references import Found
from libs.common.personal.vault import ToOpen, Vault
from libs.common.personal.vocabulary import Purpose
from services.privacy.engine.tasks import IS_UNANSWERED


def fits(answered: TaskAnswered) -> bool:
    """Whether the references are those that were signed for."""
    box = answered.references
    return box is None or sha256(box.payload).hexdigest() == answered.digest


# Where a person grows during a request, what was said about a part of them before still holds.
_KEEP = text(f"""
    INSERT INTO request_reference (request_id, participant, round, store_id, subject_id, generation, box)
    SELECT given.request_id, given.participant, given.round, request.store_id, subject_id, generation, given.box
    FROM unnest(CAST(:requests AS uuid[]), CAST(:participants AS text[]), CAST(:rounds AS bigint[]),
            CAST(:boxes AS bytea[])) AS given (request_id, participant, round, box)
        JOIN request ON request.id = given.request_id AND request.round = given.round
        JOIN task ON task.request_id = request.id AND task.participant = given.participant
            AND task.verb = 'refer' AND task.{IS_UNANSWERED}
    WHERE request.store_id = :store_id
    ON CONFLICT DO NOTHING
""")  # noqa: S608 - a constant of the engine


async def keep(session: AsyncSession, store_id: UUID, answers: Iterable[TaskAnswered]) -> None:
    """Keep the boxes of answers that are waited for, before they are taken."""
    full = [(one, one.references) for one in answers if one.references is not None and fits(one)]
    if full:
        values = {
            "store_id": store_id,
            "requests": [one.request_id for one, _ in full],
            "participants": [one.participant for one, _ in full],
            "rounds": [one.round for one, _ in full],
            "boxes": [box.payload for _, box in full],
        }
        await session.execute(_KEEP, values)


async def merged(
    vault: Vault, store_id: UUID, lives: Sequence[Life], boxes: Iterable[bytes], *emails: str
) -> References:
    """What all have said, after the addresses that are known without them. Raises KeyDestroyed, KeyringUnavailable."""
    found = Found()
    found.emails.update(dict.fromkeys(emails))
    for box in boxes:
        found.add(await _opened(vault, store_id, lives, Sealed(References, box)))
    return found.references()


async def _opened(vault: Vault, store_id: UUID, lives: Sequence[Life], box: Sealed[References]) -> References:
    """It is sealed for one of the person's subjects: the first that its participant had not erased by then."""
    tries = [ToOpen(box, store_id, life.subject_id) for life in lives]
    opened = await vault.open_many(tries, purpose=Purpose.RIGHTS_OF_THE_PERSON)
    problems = [one for one in opened if isinstance(one, Problem)]
    for one in opened:
        if isinstance(one, References):
            return one
    raise next((one for one in problems if not isinstance(one, BoxDoesNotOpen)), KeyDestroyed())
