"""What is left of a person's boxes after a part of them is erased is sealed anew, so that the old keys can go."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database
from libs.common.errors import Problem
from libs.common.personal.boxes import Moved, as_stored, indexes_of, pages, put_back
from libs.common.personal.data import PersonalData
from libs.common.personal.erasure import Asked, under_retired
from libs.common.personal.errors import SubjectErased
from libs.common.personal.holdings import Holding
from libs.common.personal.scope import Scope
from libs.common.personal.tombstones import guard
from libs.common.personal.vault import ToSeal, Vault


async def reseal(
    database: Database,
    vault: Vault,
    holdings: Iterable[Holding],
    asked: Asked,
    *,
    scope: Scope,
    retired: Sequence[UUID],
) -> Counter[str]:
    """Seal anew what lies under the retired keys, without what is in the scope and can be left out.

    By table, the rows that lost something. A row that is done lies under another key and is not met again.
    Raises Moved, SubjectErased, Unreadable, KeyringUnavailable.
    """
    # What is in memory may be the very keys that are retired.
    vault.drop(asked.store_id, [asked.subject_id])
    emptied: Counter[str] = Counter()
    keys = {"retired": [key_id.bytes for key_id in retired]}
    async with database.session(asked.store_id) as reading:
        for holding in holdings:
            if holding.kind is None:
                continue
            narrowed = under_retired(holding)
            async for page in pages(reading, vault, holding, asked, narrowed=narrowed, **keys):
                emptied[holding.name] += await _reseal(
                    database, vault, holding, asked,
                    rows=[(row, opened.data) for row, opened in page], scope=scope, retired=retired,
                )  # fmt: skip
    return +emptied


async def _reseal(
    database: Database,
    vault: Vault,
    holding: Holding,
    asked: Asked,
    *,
    rows: Sequence[tuple[Row[Any], PersonalData]],
    scope: Scope,
    retired: Sequence[UUID],
) -> int:
    left = [(row, data, data.model_copy(update=dict(scope.empties(type(data))))) for row, data in rows]
    sealed = await vault.seal_many(
        [ToSeal(new, asked.store_id, asked.subject_id, _bucket_of(holding, row)) for row, _, new in left]
    )
    changes: list[tuple[Row[Any], dict[str, Any]]] = []
    for (row, data, new), outcome in zip(left, sealed, strict=True):
        if isinstance(outcome, Problem):
            raise outcome
        if outcome.generation != asked.generation:
            raise SubjectErased
        if outcome.box.key_id in retired:
            raise Moved
        indexes = await indexes_of(vault, holding, asked.store_id, data, new)
        changes.append((row, {str(holding.box): as_stored(holding, outcome.box), **indexes}))
    async with database.session(asked.store_id) as session:
        await _write(session, holding, asked, changes)
    return sum(1 for _, data, new in left if new != data)


def _bucket_of(holding: Holding, row: Row[Any]) -> str:
    return str(row.bucket) if holding.bucket is not None else ""


async def _write(
    session: AsyncSession,
    holding: Holding,
    asked: Asked,
    changes: Sequence[tuple[Row[Any], dict[str, Any]]],
) -> None:
    await guard(session, asked.store_id, asked.subject_id, asked.generation)
    for row, columns in changes:
        await put_back(session, holding, row, columns)
