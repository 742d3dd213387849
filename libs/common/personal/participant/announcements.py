"""The duty that tells the privacy service who answers here, with which key, and what is kept."""

import hashlib
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import func, text

from libs.common.auth import PLATFORM_STORE
from libs.common.events.privacy import ParticipantAnnounced
from libs.common.outbox import publish
from libs.common.personal.datamap import data_map
from libs.common.personal.jobs import Announcement
from libs.common.personal.participant.part import Part
from libs.common.worker import Work

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtext('announcement'))")
_ANNOUNCED_AGAIN_AFTER = timedelta(days=1)


async def announce(part: Part, work: Work) -> int:
    """Tell the privacy service who answers here, with which key, and what is kept; daily, and when it changes."""
    public_key = part.key.as_dict(private=False)
    entries = data_map(part.service, part.holdings, part.copies)
    prepares = part.prepare is not None
    digest = hashlib.sha256(
        orjson.dumps([public_key, entries, prepares], option=orjson.OPT_SORT_KEYS)
    ).digest()
    async with work.database.session(PLATFORM_STORE) as session:
        await session.execute(_ONE_AT_A_TIME)
        last = await session.get(Announcement, part.service)
        now: Any = await session.scalar(func.now().select())
        if last is not None and last.digest == digest and now - last.announced_at < _ANNOUNCED_AGAIN_AFTER:
            return 0
        version = last.version + 1 if last is not None else 1
        await session.merge(
            Announcement(participant=part.service, digest=digest, version=version, announced_at=now)
        )
        event = ParticipantAnnounced(
            participant=part.service,
            public_key=public_key,
            data_map=entries,
            prepares=prepares,
            version=version,
        )
        await publish(session, event, store_id=PLATFORM_STORE, source=part.service)
    return 0
