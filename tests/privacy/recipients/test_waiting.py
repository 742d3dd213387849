"""Recipients outside, as operators see them: what is explained of their parts, what is measured, and what is traced."""

from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text

from libs.common import telemetry
from services.privacy.recipients import measuring
from tests.privacy.recipients.conftest import Outside
from tests.privacy.recipients.receiver import done, status
from tests.privacy.test_measuring import Instrument


async def explained(outside: Outside, request_id: UUID, recipient: dict[str, Any]) -> dict[str, Any]:
    """The recipient's part, as the platform's officer sees it."""
    platform = outside.platform
    with platform.at(outside.now):
        answer = await platform.client.get(
            f"/privacy/v1/operations/requests/{request_id}", headers=platform.of_platform()
        )
    assert answer.status_code == 200, answer.text
    name = f"recipient-{recipient['id']}"
    assert name in answer.json()["participants"]
    [part] = [one for one in answer.json()["parts"] if one["participant"] == name]
    return part


async def test_a_recipient_that_fails_is_explained_with_its_last_try(outside: Outside) -> None:
    recipient = await outside.active()
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    outside.receiver.answering = status(500)
    await outside.deliver()
    part = await explained(outside, request_id, recipient)
    assert (part["state"], part["waits"], part["error"], part["task"]) == (
        "failed", "answer", "fails", "erase",
    )  # fmt: skip
    assert part["since"] <= part["error_at"] < part["next_try_at"]
    # It is no participant that could leave: its merchant disables it, or answers for it.
    assert part["ended_by"] == ["answer", "drive", "settlement"]


async def test_one_that_only_took_it_must_still_say_that_it_is_done(outside: Outside) -> None:
    recipient = await outside.active()
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    part = await explained(outside, request_id, recipient)
    assert (part["state"], part["waits"], part["error"]) == ("received", "completion", None)
    assert "must still say that it is done" in part["words"]


async def test_what_is_on_its_way_is_measured_by_protocol_and_by_where_it_is(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries, late = Instrument(), Instrument()
    monkeypatch.setattr(measuring, "_open", deliveries)
    monkeypatch.setattr(measuring, "_age", late)
    monkeypatch.setattr(measuring, "is_kept", lambda: True)
    async with outside.platform.database.platform_session() as session:
        await session.execute(
            text("UPDATE delivery SET state = 'void', next_try_at = NULL WHERE state <> 'done'")
        )
    await outside.active()
    await outside.erased_but_outside(await outside.platform.person())
    await measuring.measure(outside.work())
    assert deliveries.at(protocol="webhook", state="sending") == 1
    assert 0 < late.at(protocol="webhook", state="sending") < 120
    outside.receiver.answering = done
    await outside.deliver()
    await measuring.measure(outside.work())
    assert deliveries.at(protocol="webhook", state="sending") == 0
    assert late.at(protocol="webhook", state="sending") == 0
    assert deliveries.labels == {"protocol", "state"}


async def test_a_delivery_is_in_the_trace_of_its_request_and_names_nobody(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipient = await outside.active()
    request_id = await outside.erased_but_outside(await outside.platform.person())
    async with outside.platform.database.session(outside.platform.store_id) as session:
        values = {"id": request_id, "trace": f"00-{request_id.hex}-00f067aa0ba902b7-01"}
        await session.execute(text("UPDATE request SET traceparent = :trace WHERE id = :id"), values)
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(telemetry, "is_kept", lambda: True)
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer("test"))
    await outside.deliver()
    [span] = [one for one in kept.get_finished_spans() if one.name == "deliver erase"]
    assert span.context is not None and format(span.context.trace_id, "032x") == request_id.hex
    assert span.attributes == {"service": "privacy"}
    assert recipient["id"] not in span.to_json()
    # What is sent outside says nothing of our traces.
    [came] = outside.receiver.of("privacy.erase")
    assert "traceparent" not in {name.lower() for name in came.headers}
