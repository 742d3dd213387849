"""What routes take from their request."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from libs.common.http import position_in
from services.identity.parts import Parts


async def _parts(request: Request) -> Parts:
    return request.app.state.parts


ThisParts = Annotated[Parts, Depends(_parts)]


def position(cursor: str | None) -> tuple[datetime, UUID] | None:
    """The time and the id in a cursor. Raises InvalidCursor."""
    return None if cursor is None else position_in(cursor)
