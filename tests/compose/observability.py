"""Compose's observability profile with a real Prometheus, beside end_to_end.py: `make compose-test` runs both.

Every container is scraped, also those that come later; every panel of every dashboard is answered; what goes wrong
fires the alerts that are for it, and they clear when it is mended. Grafana, Jaeger and the collector are not started.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.deploy import RUN, clean_project, compose, until_version
from tests.deploy.installation import DEPLOY

PROMETHEUS_PORT = 17590
PATIENCE_S = 600.0
OPTIONS = "--set trainer.num_iterations=1000 --set stages.0.num_steps=300 --set evaluation.num_problems=50"
SCALED = {"master": 1, "trainer": 1, "rollout": 2, "reward": 2, "sandbox": 2}

# Of the profile only Prometheus, as a part of the system itself.
OVERRIDE = """
services:
  prometheus:
    profiles: !reset null
    volumes: ["{alerts}:/etc/prometheus/alerts.yml:ro"]
"""
# What a run of the default recipe does not ask for: a program for the sandbox, and calls over HTTP.
CALLS = """
import json, urllib.request
for url, body in {
    "http://sandbox:7051/sandbox/v1/run": {"program": {"language": "python", "source": "print(6 * 7)"}},
    "http://127.0.0.1:7081/reward/v1/list-graders": {},
}.items():
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=60).read()
"""
# What no worker can read.
NONSENSE = f"""
import asyncio, nats
async def send():
    client = await nats.connect("nats://nats:4222")
    await client.jetstream().publish("perilune.{RUN}.trajectory.finished", b"no trajectory")
    await client.close()
asyncio.run(send())
"""


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Compose with alerts that fire after a twelfth of the time that they have to hold, and are else the same."""
    rules = re.sub(
        r"for: (\d)m",
        lambda match: f"for: {int(match[1]) * 5}s",
        (DEPLOY / "prometheus" / "alerts.yml").read_text(),
    )
    (tmp_path / "alerts.yml").write_text(rules)
    override = tmp_path / "compose.yml"
    override.write_text(OVERRIDE.format(alerts=tmp_path / "alerts.yml"))
    monkeypatch.setenv("COMPOSE_FILE", f"docker-compose.yml{os.pathsep}{override}")
    monkeypatch.setenv("PROMETHEUS_PORT", str(PROMETHEUS_PORT))
    subprocess.run([DEPLOY / "secrets" / "make.sh"], check=True)
    with clean_project():
        yield


def asked(method: str, **parameters: str) -> Any:
    """What Prometheus' HTTP API answers."""
    url = f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/{method}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)["data"]


def until(came_true: Callable[[], bool], seen: Callable[[], object]) -> None:
    """Waits; AssertionError with what is seen instead if it takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not came_true():
        assert time.monotonic() < deadline, seen()
        time.sleep(1.0)


def targets() -> Counter[tuple[str, str]]:
    """How many targets of every service are in what health."""
    return Counter((target["labels"]["service"], target["health"]) for target in asked("targets")["activeTargets"])


def all_up(scales: dict[str, int]) -> Counter[tuple[str, str]]:
    return Counter({(service, "up"): number for service, number in scales.items()})


def firing() -> set[tuple[str, str]]:
    """Alerts, with the service, the kind of worker or the queue that they are about."""
    alerts = [alert for alert in asked("alerts")["alerts"] if alert["state"] == "firing"]
    labels = [alert["labels"] for alert in alerts]
    return {(each["alertname"], each.get("kind") or each.get("queue") or each["service"]) for each in labels}


def panels() -> dict[tuple[str, str], str]:
    """The query of every panel, by dashboard and title."""
    found = {}
    for path in sorted(DEPLOY.glob("grafana/dashboards/*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                found[path.stem, panel["title"]] = target["expr"]
    return found


def answer_of(query: str) -> list[float]:
    return [float(series["value"][1]) for series in asked("query", query=query)["result"]]


@pytest.mark.timeout(3600)
def test_prometheus_sees_all_and_its_alerts_come_and_go() -> None:
    scales = [part for service, number in SCALED.items() for part in ("--scale", f"{service}={number}")]
    compose("up", "--detach", "--no-build", *scales, options=OPTIONS)
    until_version(1)
    until(lambda: targets() == all_up(SCALED), targets)

    rules = [rule for group in asked("rules")["groups"] for rule in group["rules"]]
    declared = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    assert [rule["name"] for rule in rules] == [rule["alert"] for group in declared for rule in group["rules"]]
    until(lambda: all(rule["health"] == "ok" for rule in rules), lambda: rules)
    until(lambda: firing() == set(), firing)

    every_panel_is_answered()
    something_goes_wrong_and_is_mended()

    compose("exec", "-T", "master", "python3", "-c", NONSENSE)
    until(lambda: {name for name, _ in firing()} == {"DeadLetters"}, firing)


def every_panel_is_answered() -> None:
    compose("exec", "-T", "reward", "python3", "-c", CALLS)
    unanswered = panels()
    assert len(unanswered) > 40

    def all_were_answered() -> bool:
        for panel, query in list(unanswered.items()):
            values = answer_of(query)
            if values and not any(math.isnan(value) for value in values):
                del unanswered[panel]
        return not unanswered

    until(all_were_answered, lambda: unanswered)
    (seconds,) = answer_of(panels()["reward", "Time of a verdict, 95th percentile"])
    assert seconds < 0.5  # of a comparison of two strings


def something_goes_wrong_and_is_mended() -> None:
    """All containers of a service gone while its work piles up; one of another's hangs; then one more is there."""
    container = compose("ps", "--quiet", "sandbox").split()[0]
    compose("stop", "reward")
    subprocess.run(["docker", "pause", container], check=True, capture_output=True)
    expected = {
        ("ServiceDown", "reward"),
        ("NoWorkers", "reward"),
        ("QueueStuck", "reward"),
        ("ContainerSilent", "sandbox"),
    }
    until(lambda: expected <= firing(), firing)
    before = until_version(0)["policy"]

    subprocess.run(["docker", "unpause", container], check=True, capture_output=True)
    compose("start", "reward")
    compose("up", "--detach", "--no-build", "--no-deps", "--no-recreate", "--scale", "rollout=3", "rollout")
    until(lambda: targets() == all_up(SCALED | {"rollout": 3}), targets)
    until(lambda: firing() == set(), firing)
    until_version(int(before["number"]) + 1)
