"""What is told about the platform's work, and what is not: one trace a request, numbers, and nobody's data."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deploy.local.environment import SERVICES
from libs.common import telemetry
from libs.common.broker import Record
from libs.common.events import Event, envelope_of, headers_of
from libs.common.events.privacy import TaskIssued, Verb
from libs.common.inbox import Consumer
from libs.common.otlp import MEASURED, TRACED
from libs.common.telemetry import JsonFormatter
from services.orders.consumer import HANDLERS
from tests.contract.house import Furnished, House
from tests.contract.life import Life
from tests.contract.otlp import Collector, Span

ROOT = Path(__file__).parents[2]
OPENING = "POST /privacy/v1/stores/{store_id}/requests"
ISSUED, ANSWERED = "handle vitrine.privacy.task-issued.v1", "handle vitrine.privacy.task-answered.v1"


# --- Traces ----------------------------------------------------------------------------------------------


def trace_of(collector: Collector, right: str) -> list[Span]:
    """All spans of the trace that begins with the call that opened the request: access came first, erasure last."""
    spans = sorted(collector.spans(), key=lambda span: span.start)
    opened = [span for span in spans if span.name == OPENING and span.attributes["http.status_code"] == 201]
    assert len(opened) == 7
    root = opened[{"access": 0, "erasure": -1}[right]]
    return [span for span in spans if span.trace_id == root.trace_id]


@pytest.mark.parametrize(("right", "answers"), [("access", 5), ("erasure", 10)])
async def test_one_trace_leads_from_the_call_to_the_last_answer(
    right: str, answers: int, lived: tuple[Life, Path], collector: Collector
) -> None:
    trace = trace_of(collector, right)
    handled = {span.attributes["service"] for span in trace if span.name == ISSUED}
    assert handled == set(SERVICES)
    heard = [span for span in trace if span.name == ANSWERED]
    assert {span.process for span in heard} == {"vitrine-privacy-worker"}
    assert sum(span.attributes["batch"] for span in heard) >= answers


@pytest.mark.parametrize("right", ["access", "erasure"])
async def test_every_span_of_a_trace_hangs_together(
    right: str, lived: tuple[Life, Path], collector: Collector
) -> None:
    trace = trace_of(collector, right)
    known = {span.span_id for span in trace}
    assert [span.name for span in trace if span.parent_id not in known] == [OPENING]


VERBS = {"access": {"export"}, "erasure": {"preview", "erase", "verify-erased"}}


@pytest.mark.parametrize(
    ("right", "of_keyring"), [("access", set[str]()), ("erasure", {"erase", "verify-erased"})]
)
async def test_a_trace_has_a_span_of_each_service_for_each_task_and_of_the_certificate(
    right: str, of_keyring: set[str], lived: tuple[Life, Path], collector: Collector
) -> None:
    trace = trace_of(collector, right)
    done = {
        (span.attributes["service"], span.name.removeprefix("task ")): span.process
        for span in trace
        if span.name.startswith("task ")
    }
    expected = {(service, verb): f"vitrine-{service}-worker" for service in SERVICES for verb in VERBS[right]}
    # The keyring's part is a call of the privacy worker, and the keyring's own span belongs to it.
    assert done == expected | {("keyring", verb): "vitrine-privacy-worker" for verb in of_keyring}
    by_id = {span.span_id: span for span in trace}
    called = {by_id[span.parent_id].name for span in trace if span.process == "vitrine-keyring"}
    assert {f"task {verb}" for verb in of_keyring} <= called
    [certified] = [span for span in trace if span.name == "certificate"]
    assert certified.process == "vitrine-privacy-worker"
    assert certified.start >= max(span.start for span in trace if span.name == ANSWERED)


async def test_what_is_done_together_has_a_span_in_each_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(telemetry, "is_kept", lambda: True)
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer("test"))
    traces = [f"00-{uuid4().hex}-{uuid4().hex[:16]}-01" for _ in range(3)]
    with telemetry.joint_spans(((f"task {n}", one) for n, one in enumerate(traces)), service="orders"):
        assert telemetry.current_traceparent() is not None
    found = {span.name: span for span in kept.get_finished_spans()}
    for n, one in enumerate(traces):
        span = found[f"task {n}"]
        assert span.context is not None and span.parent is not None
        assert format(span.context.trace_id, "032x") == one.split("-")[1]
        assert format(span.parent.span_id, "016x") == one.split("-")[2]
        assert span.attributes == {"service": "orders"}
        assert span.start_time and span.end_time and span.start_time <= span.end_time


def test_where_no_spans_are_kept_nothing_is_asked_for_them() -> None:
    def asked() -> Iterator[tuple[str, str | None]]:
        raise AssertionError
        yield "", None

    with telemetry.joint_spans(asked(), service="orders"):
        pass


async def test_spans_carry_listed_attributes_and_routes_for_names(
    lived: tuple[Life, Path], collector: Collector
) -> None:
    spans = list(collector.spans())
    assert {span.process for span in spans} >= {"vitrine-gateway", "vitrine-keyring", "vitrine-orders-worker"}
    assert {name for span in spans for name in span.attributes} <= TRACED
    assert [
        span.name for span in spans if any(character.isdigit() for character in span.name.replace("v1", ""))
    ] == []


def _task(store_id: UUID, traceparent: str) -> tuple[TaskIssued, Record]:
    event = TaskIssued(request_id=uuid4(), verb=Verb.VERIFY_ERASED, subject_id=uuid4(), generation=1)
    envelope = envelope_of(event, store_id=store_id, source="privacy", traceparent=traceparent)
    return event, Record(event.topic, envelope.key, event.model_dump_json().encode(), headers_of(envelope))


async def test_events_handled_together_continue_the_trace_of_each(house: House, ours: Furnished) -> None:
    traces = [f"00-{uuid4().hex}-{uuid4().hex[:16]}-01" for _ in range(3)]
    tasks = [_task(ours.id, trace) for trace in traces]
    broker: Any = None  # handling asks nothing of it
    consumer = Consumer(service="orders", database=house.database("orders"), broker=broker, handlers=HANDLERS)
    await _handled(consumer, [record for _, record in tasks])
    found = await _traces_of_answers(house, ours.id, [task for task, _ in tasks])
    assert [trace.split("-")[1] for trace in found] == [trace.split("-")[1] for trace in traces]


async def _handled(consumer: Consumer, records: Sequence[Record]) -> None:
    decoded = [consumer._decoded(record) for record in records]  # pyright: ignore[reportPrivateUsage]
    await consumer._together(decoded)  # pyright: ignore[reportPrivateUsage]


async def _traces_of_answers(house: House, store_id: UUID, events: Sequence[Event]) -> list[str]:
    found: dict[str, str] = {}
    async with house.database("orders").session(store_id) as session:
        connection = await session.connection()
        rows = await connection.exec_driver_sql("SELECT headers FROM outbox WHERE topic = 'privacy.answers'")
        for (headers,) in rows:
            found[headers["ce_subject"]] = headers.get("traceparent", "")
    return [found[event.aggregate] for event in events]


# --- Metrics ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("name", ["outbox.waiting", "outbox.age", "consumer.lag", "events.parked"])
async def test_every_worker_measures_what_waits(
    service: str, name: str, lived: tuple[Life, Path], collector: Collector
) -> None:
    points = collector.measured()[f"vitrine-{service}-worker", name]
    assert points and all(value(point) >= 0 for point in points)


async def test_open_requests_are_counted_and_dated_until_they_end(
    lived: tuple[Life, Path], collector: Collector
) -> None:
    life, _ = lived
    measured = collector.measured()

    def told(name: str, **labels: str) -> list[float]:
        points = measured["vitrine-privacy-worker", name]
        return [value(point) for point in points if labels.items() <= attributes(point).items()]

    of_access = {"right": "access", "state": "running"}
    assert max(told("privacy.requests.open", **of_access)) == 1
    assert max(told("privacy.requests.age", **of_access)) > 1
    assert max(told("privacy.tasks.waiting", participant=life.late)) == 1
    assert told("privacy.requests.open", **of_access)[-1] == 0
    for participant in (life.late, "keyring"):
        assert told("privacy.tasks.waiting", participant=participant)[-1] == 0


async def test_measurements_of_http_are_told_apart_by_route_and_status_alone(
    lived: tuple[Life, Path], collector: Collector
) -> None:
    of_http = [
        point
        for (_, name), points in collector.measured().items()
        if name.startswith("http.")
        for point in points
    ]
    assert of_http
    assert {name for point in of_http for name in attributes(point)} <= MEASURED


def value(point: Any) -> float:
    return float(getattr(point, point.WhichOneof("value")))


def attributes(point: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in point.attributes}


# --- Logs ------------------------------------------------------------------------------------------------


def line_of(name: str, message: str, *arguments: object, error: bool = False, **extra: object) -> str:
    logger = logging.getLogger(name)
    found = sys.exc_info() if error else None
    record = logger.makeRecord(name, logging.WARNING, __file__, 1, message, arguments, found, extra=extra)
    return JsonFormatter().format(record)


def test_a_log_line_drops_what_is_not_listed() -> None:
    line = line_of(
        "libs.common.inbox", "event is parked", count=3, email="canary@vitrine.example", body={"a": 1}
    )
    assert "canary" not in line
    assert json.loads(line).keys() == {"time", "level", "logger", "message", "count"}


def test_a_log_line_says_nothing_of_what_an_exception_says() -> None:
    try:
        raise ValueError("canary@vitrine.example")
    except ValueError:
        line = line_of("services.orders.api", "unexpected error", error=True)
    assert "canary" not in line
    assert json.loads(line)["exception"] == "ValueError"


def test_what_libraries_put_into_their_messages_stays_out() -> None:
    assert "canary" not in line_of("sqlalchemy.engine", "parameters: %s", "canary@vitrine.example")


# --- Silence ---------------------------------------------------------------------------------------------


def test_nothing_is_told_to_anybody_without_an_endpoint() -> None:
    code = (
        "import sys; from libs.common import telemetry; telemetry.start('silent'); "
        "sys.exit(telemetry.is_kept() or 'libs.common.otlp' in sys.modules or 'opentelemetry.sdk.trace' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
