"""One trace follows a trajectory: dispatch, generation, scoring, and a link from the training step."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e.test_faults import quick_run


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """An OTLP endpoint that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []  # with the name of the service
        self.metrics: set[str] = set()

    def Export(self, request, context):  # type: ignore[no-untyped-def]
        if isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest):
            for resource in request.resource_metrics:
                self.metrics |= {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
            return metrics_service_pb2.ExportMetricsServiceResponse()
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"http://127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.timeout(1200)
async def test_one_trace_follows_a_trajectory_through_every_service(tmp_path: Path) -> None:
    with collecting() as (collector, endpoint):
        launched = await quick_run(
            tmp_path,
            "--set",
            "trainer.num_iterations=2",
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_BSP_SCHEDULE_DELAY="500",
        )
        await launched.end()
    dispatched = {span.trace_id for service, span in collector.spans if span.name == "dispatch"}
    assert len(dispatched) == 2 * 16 + 2 * 2 * 20  # groups, and held-out problems in two modes before and after
    for service in ("perilune-rollout", "perilune-reward"):
        assert dispatched <= {span.trace_id for name, span in collector.spans if name == service}
    trained = [span for service, span in collector.spans if service == "perilune-trainer" and span.name == "train"]
    linked = {link.trace_id for span in trained for link in span.links}
    assert len(trained) == 2
    assert len(linked) == 2 * 16
    assert linked <= dispatched
    assert {name.split(".")[1] for name in collector.metrics if name.startswith("perilune.")} >= {
        "rollout",
        "reward",
        "trainer",
        "master",
    }
