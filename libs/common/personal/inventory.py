"""What a participant holds about people, counted without opening a box, one statement for any number of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import fetch
from libs.common.events.privacy import TaskIssued
from libs.common.personal.erasure import Asked, Keeping, Statement, asked_table, belongs_to
from libs.common.personal.holdings import Holding, Person
from libs.common.personal.scope import Scope


@dataclass(frozen=True, slots=True)
class Inventory:
    """The holdings that a task is about, and what counts them."""

    holdings: Sequence[Holding]
    counting: Statement | None
    keeping: Keeping

    @classmethod
    def of(cls, holdings: Sequence[Holding], scope: Scope) -> "Inventory":
        """What an export of the scope would show, and what its erasure would keep."""
        concerned = scope.concerned(holdings)
        staying = [] if scope.is_whole else [one for one in concerned if scope.leaves(one)]
        shown = [_counted(holding) for holding in concerned if holding.exported]
        counting = Statement.of(union_all(*shown)) if shown else None
        return cls(concerned, counting, Keeping.of(concerned, staying))

    async def count(self, session: AsyncSession, batch: Sequence[Asked]) -> dict[UUID, Counter[str]]:
        """By request, how many rows of each table are about this life of its person."""
        counts: dict[UUID, Counter[str]] = defaultdict(Counter)
        if self.counting is not None:
            for row in await self.counting.execute(session, batch):
                counts[row["request_id"]][row["name"]] += row["number"]
        return counts

    async def obligations(
        self, session: AsyncSession, store_id: UUID, people: Sequence[Person]
    ) -> Mapping[Person, list[str]]:
        """By person, why somebody should look before they are erased."""
        found: dict[Person, set[str]] = defaultdict(set)
        for holding in self.holdings:
            if holding.obligations is not None:
                for person, words in (await holding.obligations(session, store_id, people)).items():
                    found[person] |= set(words)
        return {person: sorted(words) for person, words in found.items()}


def _counted(holding: Holding) -> Select[Any, Any, Any]:
    held, asked = holding.sql, asked_table()
    return (
        select(asked.c.request_id, literal(holding.name).label("name"), func.count().label("number"))
        .join_from(asked, held, belongs_to(held, asked, holding))
        .where(held.c.generation == asked.c.generation)
        .group_by(asked.c.request_id)
    )


_RECOGNISED = """
    SELECT asked.request_id
    FROM unnest($2::uuid[], $3::uuid[], $4::bigint[], $5::text[])
        AS asked (request_id, subject_id, generation, number)
    JOIN {table} AS held ON held.store_id = $1 AND held.{number} = asked.number
        AND (held.subject_id, held.generation) = (asked.subject_id, asked.generation)
"""


async def recognised(
    session: AsyncSession, holdings: Iterable[Holding], store_id: UUID, tasks: Sequence[TaskIssued]
) -> set[UUID]:
    """The requests whose order is their person's. The same work for an order that is somebody else's, or nobody's."""
    found: set[UUID] = set()
    asked = [(task, life) for task in tasks for life in task.lives]
    for holding in holdings:
        if holding.order_number is not None:
            query = _RECOGNISED.format(table=holding.name, number=holding.order_number)
            rows = await fetch(
                session, query, store_id,
                [task.request_id for task, _ in asked],
                [life.subject_id for _, life in asked],
                [life.generation for _, life in asked],
                [task.order_number for task, _ in asked],
            )  # fmt: skip
            found |= {row["request_id"] for row in rows}
    return found
