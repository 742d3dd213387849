"""What routes take from their request."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from libs.common.http import InvalidCursor, decode_cursor, encode_cursor
from services.identity.parts import Parts


def _parts(request: Request) -> Parts:
    return request.app.state.parts


ThisParts = Annotated[Parts, Depends(_parts)]


def position(cursor: str | None) -> tuple[datetime, UUID] | None:
    """The time and the id in a cursor. Raises InvalidCursor."""
    if cursor is None:
        return None
    moment, identifier = decode_cursor(cursor, str, str)
    try:
        return datetime.fromisoformat(moment), UUID(identifier)
    except ValueError as error:
        raise InvalidCursor from error


def cursor_at(moment: datetime, identifier: UUID) -> str:
    """The cursor of a position."""
    return encode_cursor(moment.isoformat(), str(identifier))
