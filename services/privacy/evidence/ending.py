"""What entries say goes after some years; their hashes, and with them every proof, stay for ever."""

from datetime import timedelta

from sqlalchemy import text

from libs.common.worker import Work
from services.privacy.settings import present

_AT_ONCE = 1000
_DAYS_A_YEAR = 366
"""Never a day too early."""
_FORGET = text("""
    DELETE FROM evidence_entry WHERE (store_id, index) IN (
        SELECT store_id, index FROM evidence_entry WHERE at < :before ORDER BY at LIMIT :limit
    ) RETURNING index
""")


async def forget(work: Work) -> int:
    """Remove what old entries say, in batches. Returns 0 unless more is to go."""
    before = work.clock() - timedelta(days=present().evidence_years * _DAYS_A_YEAR)
    async with work.database.platform_session() as session:
        gone = (await session.scalars(_FORGET, {"before": before, "limit": _AT_ONCE})).all()
    return len(gone) // _AT_ONCE
