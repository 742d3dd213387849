"""A collector of telemetry: OTLP over HTTP, kept in memory."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.serving import serving


@dataclass(frozen=True)
class Span:
    """One span, and the process it is from."""

    process: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Mapping[str, Any]
    start: int
    """Nanoseconds."""


@dataclass
class Collector:
    """What was sent, as it was sent."""

    url: str = ""
    traces: list[bytes] = field(default_factory=list[bytes])
    metrics: list[bytes] = field(default_factory=list[bytes])

    @property
    def raw(self) -> bytes:
        return b"\n".join([*self.traces, *self.metrics])

    def spans(self) -> Iterator[Span]:
        for body in self.traces:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                process = _attributes(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        yield Span(
                            process,
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            _attributes(span.attributes),
                            span.start_time_unix_nano,
                        )

    def measured(self) -> dict[tuple[str, str], list[Any]]:
        """The data points of every metric, by process and name, in the order they were sent."""
        found: dict[tuple[str, str], list[Any]] = {}
        for body in self.metrics:
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                process = _attributes(resource.resource.attributes)["service.name"]
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        data = getattr(metric, str(metric.WhichOneof("data")))
                        found.setdefault((process, metric.name), []).extend(data.data_points)
        return found


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


@asynccontextmanager
async def collecting() -> AsyncGenerator[Collector]:
    """A collector that listens on a free port."""
    collector = Collector()

    async def take(request: Request) -> Response:
        kept = collector.traces if request.url.path.endswith("traces") else collector.metrics
        kept.append(await request.body())
        return Response(b"", media_type="application/x-protobuf")

    paths = ("/v1/traces", "/v1/metrics")
    app = Starlette(routes=[Route(path, take, methods=["POST"]) for path in paths])
    async with serving(app) as url:
        collector.url = url
        yield collector
