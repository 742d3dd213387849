"""What routes take from their request."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request

from services.privacy.settings import Settings

RequestId = Annotated[UUID, Path(description="The request.")]


def now() -> datetime:
    """The clock of requests and links, in UTC."""
    return datetime.now(UTC)


Now = Annotated[datetime, Depends(now)]


def expected(request: Request) -> Sequence[str]:
    """The participants that are asked whether they announced themselves or not."""
    settings: Settings = request.app.state.settings
    return sorted(settings.participants)
