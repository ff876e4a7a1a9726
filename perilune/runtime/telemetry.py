"""OpenTelemetry for every service: one trace follows a trajectory through NATS and gRPC.

Silent unless configured: OTEL_EXPORTER_OTLP_ENDPOINT for traces and metrics, PERILUNE_METRICS_PORT for a
Prometheus page. Without them the API's own no-op tracer and meter cost next to nothing.
"""

from __future__ import annotations

import os

from opentelemetry import context, metrics, propagate, trace

from perilune.errors import InvalidInputError

tracer = trace.get_tracer("perilune")
meter = metrics.get_meter("perilune")


def is_exporting() -> bool:
    """True if metrics are exported: else what costs something to measure need not be."""
    return bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("PERILUNE_METRICS_PORT"))


def set_up(service: str, instance: str, metrics_port: int | None, metrics_host: str = "127.0.0.1") -> None:
    """Installs exporters for this process, as the environment asks; call once, before the first span.

    InvalidInputError if the port of the metrics' page is taken.
    """
    if not is_exporting():
        return
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    # The SDK takes a third of a second to import: only those who export pay for it.
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create({"service.name": f"perilune-{service}", "service.instance.id": instance})
    readers: list[MetricReader] = []
    if metrics_port:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import start_http_server

        try:
            start_http_server(metrics_port, metrics_host)
        except OSError as error:
            raise InvalidInputError(
                f"PERILUNE_METRICS_PORT: no page can be served on port {metrics_port}: {error.strerror}"
            ) from error
        readers.append(PrometheusMetricReader())
    if endpoint:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, GrpcAioInstrumentorServer
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
        GrpcAioInstrumentorClient().instrument()  # type: ignore[no-untyped-call]
        GrpcAioInstrumentorServer().instrument()  # type: ignore[no-untyped-call]
    metrics.set_meter_provider(MeterProvider(readers, resource=resource))


def headers_of(ctx: context.Context | None = None) -> dict[str, str]:
    """The W3C trace headers of a context (the current one by default), for a message; empty when not tracing."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, ctx)
    return carrier


def context_of(headers: dict[str, str] | None) -> context.Context:
    """The context that a message's headers carry; an empty one if they carry none."""
    return propagate.extract(headers or {})


def link_to(traceparent: str) -> list[trace.Link]:
    """A span link to another trace, for work that joins many of them; none for an empty traceparent."""
    span = trace.get_current_span(context_of({"traceparent": traceparent})).get_span_context()
    return [trace.Link(span)] if span.is_valid else []
