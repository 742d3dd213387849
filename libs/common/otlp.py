"""Export of traces and metrics by OTLP over HTTP; imported only where an endpoint is configured.

What may leave is a list of names, as in logs: an address, a query or the message of an exception can hold
whatever somebody typed.
"""

from collections.abc import Sequence

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Status

TRACED = frozenset(
    {
        "batch",
        "error.type",
        "http.flavor",
        "http.method",
        "http.route",
        "http.scheme",
        "http.status_code",
        "service",
    }
)
"""Attributes that leave with a span."""
MEASURED = frozenset({"http.method", "http.status_code", "http.target"})
"""Attributes of the measurements of HTTP; `http.target` is the route there, not the address."""


class Listed(SpanExporter):
    """Passes spans on with their listed attributes, without events and without words about errors."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export what may leave."""
        return self._exporter.export([_listed(span) for span in spans])

    def shutdown(self) -> None:
        """Let go of the connection."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what waits."""
        return self._exporter.force_flush(timeout_millis)


def _listed(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={name: value for name, value in (span.attributes or {}).items() if name in TRACED},
        links=span.links,
        kind=span.kind,
        instrumentation_scope=span.instrumentation_scope,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
    )


def export(service: str) -> None:
    """Send this process's traces and metrics to where `OTEL_EXPORTER_OTLP_ENDPOINT` says."""
    resource = Resource.create({"service.name": f"vitrine-{service}"})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(Listed(OTLPSpanExporter())))
    trace.set_tracer_provider(traces)
    metrics.set_meter_provider(
        MeterProvider(
            resource=resource,
            metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())],
            views=[View(instrument_name="http.*", attribute_keys=set(MEASURED))],
        )
    )
