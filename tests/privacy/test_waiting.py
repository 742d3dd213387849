"""Whom requests wait for: listed for the platform and for a store, and explained in words and as data."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from libs.common.auth import Role
from libs.common.events.privacy import Outcome, Verb
from services.privacy import duties
from services.privacy.domain.states import TaskState
from tests.common.personal.shop import SHOP
from tests.privacy.conftest import Platform

OPERATIONS = "/privacy/v1/operations/requests"


async def explained(platform: Platform, request_id: UUID, **query: str) -> dict[str, Any]:
    answer = await platform.client.get(
        f"{OPERATIONS}/{request_id}", params=query, headers=platform.of_platform()
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def listed(platform: Platform, **query: Any) -> list[dict[str, Any]]:
    """All parts of the list, of this test's store alone."""
    found: list[dict[str, Any]] = []
    params = {"store": str(platform.store_id), "limit": 2} | query
    while True:
        answer = await platform.client.get(OPERATIONS, params=params, headers=platform.of_platform())
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        if (following := answer.json()["next"]) is None:
            return found
        params["cursor"] = following


def part(explanation: dict[str, Any], participant: str) -> dict[str, Any]:
    [found] = [one for one in explanation["parts"] if one["participant"] == participant]
    return found


# --- One -------------------------------------------------------------------------------------------------


async def test_an_export_says_who_has_not_answered_and_since_when(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "access")
    before = await explained(platform, request_id)
    assert before["waits_for"] == "participants"
    assert before["participants"] == ["privacy", SHOP]
    await platform.answer_itself(request_id, Verb.EXPORT)
    found = await explained(platform, request_id)
    assert (found["participants"], found["ended"]) == ([SHOP], 1)
    waiting = part(found, SHOP)
    assert (waiting["task"], waiting["state"], waiting["waits"], waiting["tries"]) == (
        "export", "waiting", "answer", 1,
    )  # fmt: skip
    assert waiting["since"] == part(before, SHOP)["since"]
    assert waiting["next_try_at"] > waiting["since"]
    assert (waiting["error"], waiting["error_at"]) == (None, None)
