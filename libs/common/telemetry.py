"""Traces, metrics and logs: exported by OTLP when an endpoint is configured, silent otherwise.

Logs are one JSON object a line. What a record's `extra` may carry is a list of names, not a list of
exceptions: anything else is dropped, so that a forgotten e-mail cannot leave by accident.
"""

import logging
import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import orjson
from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind

tracer = trace.get_tracer("vitrine")
meter = metrics.get_meter("vitrine")

LOGGED = frozenset(
    {
        "attempts", "batch", "count", "error", "events", "event_id", "event_type", "failures", "key_id",
        "lag", "method", "outcome", "participant", "partition", "port", "reason", "request_id", "route", "seconds",
        "service", "state", "status", "store_id", "topic", "verb", "version",
    }
)  # fmt: skip
"""Names a log line may carry besides its message: ids, counts and fixed words."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line; an exception gives its type and where it was raised, never its message."""

    def format(self, record: logging.LogRecord) -> str:
        """Messages are constant texts by convention; interpolated arguments come from libraries only."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage() if record.name.startswith(_SPEAKING) else str(record.msg),
        }
        line |= {name: value for name, value in vars(record).items() if name in LOGGED}
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
            line["at"] = list(_frames(record.exc_info[2]))
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line["trace_id"] = format(context.trace_id, "032x")
        return orjson.dumps(line, default=str).decode()


_SPEAKING = ("libs.", "services.", "deploy.", "uvicorn.error")


def _frames(traceback: Any) -> Iterator[str]:
    while traceback is not None:
        code = traceback.tb_frame.f_code
        yield f"{code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno} {code.co_name}"
        traceback = traceback.tb_next


def start(service: str, *, level: str = "INFO") -> None:
    """Set up logging, and OTLP export when `OTEL_EXPORTER_OTLP_ENDPOINT` says where to."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("aiokafka", "httpx", "httpcore", "uvicorn.access", "mail.log"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL if noisy == "aiokafka" else logging.WARNING)
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from libs.common.otlp import export

        export(service)


def is_kept() -> bool:
    """Whether anything is done with spans. If not, no request should pay for them: they cost as much as a query."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


_CONTINUED: ContextVar[Mapping[str, str]] = ContextVar("continued", default=MappingProxyType({}))


@contextmanager
def continuing(traces: Mapping[str, str | None]) -> Generator[None]:
    """What is published about these aggregates meanwhile continues the trace of each: a batch holds several.

    `traces` are W3C trace contexts by the id of the aggregate.
    """
    known = {aggregate: parent for aggregate, parent in traces.items() if parent}
    token = _CONTINUED.set({**_CONTINUED.get(), **known})
    try:
        yield
    finally:
        _CONTINUED.reset(token)


def traceparent_of(aggregate: str) -> str | None:
    """The W3C trace context to send along with an event, if a trace is under way."""
    return _CONTINUED.get().get(aggregate) or current_traceparent()


def current_traceparent() -> str | None:
    """The W3C trace context to send along, if a trace is under way."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def consumer_span(name: str, traceparent: str | None, **attributes: str | int) -> Generator[Span]:
    """A span that continues the publisher's trace, so that one trace crosses the broker."""
    with tracer.start_as_current_span(
        name,
        context=_context_of(traceparent),
        kind=SpanKind.CONSUMER,
        attributes=attributes,
        record_exception=False,
    ) as span:
        yield span


@contextmanager
def joint_spans(named: Iterable[tuple[str, str | None]], **attributes: str) -> Generator[None]:
    """For what is done for several at once a span each, by its name and the trace it belongs to.

    Calls that are made meanwhile continue the first. `named` is not looked at where spans are not kept.
    """
    found = list(named) if is_kept() else []
    if not found:
        yield
        return
    begun = time.time_ns()
    (name, traceparent), *others = found
    with tracer.start_as_current_span(
        name, context=_context_of(traceparent), attributes=attributes, record_exception=False
    ):
        yield
    for name, traceparent in others:
        context = _context_of(traceparent)
        tracer.start_span(name, context=context, start_time=begun, attributes=attributes).end()


def _context_of(traceparent: str | None) -> Context | None:
    return propagate.extract({"traceparent": traceparent}) if traceparent else None
