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
        SELECT store_id, index FROM evidence_entry AS entry WHERE at < :before AND NOT EXISTS (
            SELECT FROM legal_hold AS hold LEFT JOIN request ON request.id = entry.request_id
            WHERE hold.store_id = entry.store_id AND hold.lifted_at IS NULL AND hold.ends_at > :now
                AND (hold.subject_id IS NULL OR hold.subject_id = request.subject_id))
        ORDER BY at LIMIT :limit
    ) RETURNING index
""")


async def forget(work: Work) -> int:
    """Remove what old entries say, in batches, unless a legal hold is on it. Returns 0 unless more is to go."""
    before = work.clock() - timedelta(days=present().evidence_years * _DAYS_A_YEAR)
    async with work.database.platform_session() as session:
        gone = (
            await session.scalars(_FORGET, {"before": before, "now": work.clock(), "limit": _AT_ONCE})
        ).all()
    return len(gone) // _AT_ONCE
