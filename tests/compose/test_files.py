"""What lies in deploy/ agrees with the services: probe and health, compose and images, dashboards and metrics."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest_asyncio
import trustme
import yaml
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.master.gauges import Gauges

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
DOCKERFILE = (DEPLOY / "images" / "Dockerfile").read_text()


@dataclasses.dataclass
class HealthServer:
    servicer: health.aio.HealthServicer
    listen: str


@pytest_asyncio.fixture
async def server() -> AsyncIterator[HealthServer]:
    running = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, running)
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    yield HealthServer(servicer, f"0.0.0.0:{port}")
    await running.stop(None)


def probe(listen: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-SE", str(DEPLOY / "images" / "probe.py")]
    env = {"PERILUNE_LISTEN": listen, "PATH": os.environ["PATH"], **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


async def probed(listen: str, **environment: str) -> int:
    return (await asyncio.to_thread(probe, listen, **environment)).returncode


async def test_the_probe_believes_what_grpc_health_says(server: HealthServer) -> None:
    await server.servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert await probed(server.listen) == 1
    await server.servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    assert await probed(server.listen) == 0


def test_the_probe_says_that_nobody_listens() -> None:
    done = probe("127.0.0.1:9")
    assert done.returncode == 1
    assert "no health from 127.0.0.1:9" in done.stderr


async def test_the_probe_speaks_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("reward.example")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    certificate.private_key_pem.write_to_path(str(key))
    cert.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    running = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, running)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    port = running.add_secure_port("127.0.0.1:0", credentials)
    await running.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    listen = f"127.0.0.1:{port}"
    assert await probed(listen, PERILUNE_TLS_CERT=str(cert), PERILUNE_TLS_KEY=str(key)) == 0
    assert await probed(listen) == 1
    await running.stop(None)


def test_every_service_of_ours_has_a_target_and_an_extra() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = set(re.findall(r"^FROM .* AS (\S+)$", DOCKERFILE, re.MULTILINE))
    ours = {name for name, service in COMPOSE["services"].items() if "build" in service}
    assert ours == {"master", "trainer", "rollout", "rollout-vllm", "reward", "sandbox"}
    for name in ours:
        assert COMPOSE["services"][name]["build"]["target"] == name
        assert name in targets
    for name in ours - {"rollout-vllm"}:
        assert name in extras
        assert (REPOSITORY / "services" / name / "__main__.py").exists()


def test_what_runs_untrusted_programs_holds_no_secret_and_reaches_nothing() -> None:
    sandbox = COMPOSE["services"]["sandbox"]
    assert sandbox["networks"] == ["judging"]
    assert COMPOSE["networks"]["judging"]["internal"]
    assert "secrets" not in sandbox
    assert not [name for name in sandbox["environment"] if "NATS" in name or "DATABASE" in name]
    assert json.loads((DEPLOY / "sandbox" / "seccomp.json").read_text())["defaultAction"] == "SCMP_ACT_ERRNO"


def test_no_container_of_ours_is_root_or_can_become_it() -> None:
    assert DOCKERFILE.rstrip().rpartition("USER ")[2].startswith("perilune")
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert "no-new-privileges:true" in service["security_opt"], name


def declared_metrics() -> set[str]:
    """Names of all instruments that the code makes, as Prometheus writes them, without unit and kind."""
    found = {f"perilune_master_{field.name}" for field in dataclasses.fields(Gauges)}
    for path in [*REPOSITORY.glob("services/**/*.py"), *REPOSITORY.glob("perilune/**/*.py")]:
        names = re.findall(r"meter\.create_\w+\(\s*\"(perilune[\w.]+)\"", path.read_text())
        found.update(name.replace(".", "_") for name in names)
    return found


def test_alerts_and_dashboards_ask_for_metrics_that_there_are() -> None:
    files = [DEPLOY / "prometheus" / "alerts.yml", *DEPLOY.glob("grafana/dashboards/*.json")]
    asked = {name for path in files for name in re.findall(r"perilune_[a-z_]+", path.read_text())}
    suffix = re.compile(r"(_seconds|_bytes)?(_total|_bucket|_sum|_count)?$")
    assert len(asked) > 10
    declared = declared_metrics()
    assert {name for name in asked if not {name, suffix.sub("", name)} & declared} == set()


def test_the_collector_hands_on_what_it_receives() -> None:
    """Every part of a pipeline is declared, and every declared part is used: what the collector itself asks for."""
    config = yaml.safe_load((DEPLOY / "otel" / "collector.yaml").read_text())
    pipelines = config["service"]["pipelines"]
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines.values() for name in pipeline[kind]}
        assert used == config[kind].keys(), kind
    assert set(config["service"]["extensions"]) == config["extensions"].keys()
    host, _, port = config["exporters"]["otlp_grpc/traces"]["endpoint"].partition(":")
    assert host in COMPOSE["services"]
    assert port == "4317"
    (mount,) = COMPOSE["services"]["otel"]["volumes"]
    assert (REPOSITORY / mount.split(":")[0]).exists()


def test_profiles_leave_the_system_itself_as_it_is() -> None:
    optional = {name: service["profiles"] for name, service in COMPOSE["services"].items() if "profiles" in service}
    assert optional == {
        "rollout-vllm": ["vllm"],
        **{name: ["observability"] for name in ("otel", "prometheus", "grafana", "jaeger")},
    }
    for name, service in COMPOSE["services"].items():
        needed = service.get("depends_on", {})
        assert not needed.keys() & optional.keys(), name
