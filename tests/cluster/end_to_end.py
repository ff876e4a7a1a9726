"""The chart on a real cluster, as a user installs it: that of the current kubeconfig, in a namespace of its own that
goes again. `make cluster-test` runs this; `make test` does not: it needs a cluster that can pull the images, and some
minutes.

Install, learn a little, scale, delete pods, upgrade, uninstall; over TLS, with the chart's defaults but for KEDA and
for what is asked of the nodes. PERILUNE_IMAGES is the images' registry with its slash, PERILUNE_TAG their tag, and
PERILUNE_CHART_VALUES has more values for Helm (a=b,c=d). On a Kubernetes before 1.29 the chart's objects are turned
back first (tests/cluster/older), and each says how in an annotation, perilune/turned-back.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from perilune.api.master.v1.master_pb2 import Run, RunState
from perilune.channel import Credentials
from perilune.client import RunClient, SandboxClient
from perilune.client.connection import Connection
from perilune.errors import UnavailableError
from perilune.recipe import load_recipe
from tests.conftest import free_port
from tests.deploy.charts import CHART, program
from tests.deploy.installation import DEPLOY, REPOSITORY
from tests.deploy.test_helm import VARIANTS

RELEASE, RUN = "perilune", "search"
SERVICES = ("master", "trainer", "rollout", "reward", "sandbox")
ITERATIONS = 4
QUICK = [
    f"trainer.num_iterations={ITERATIONS}",
    "stages.0.num_steps=600",
    "evaluation.num_problems=100",
    f"evaluation.every={ITERATIONS}",
]
NUM_SAMPLES = ITERATIONS * 64 * 8
ACTIVE = {RunState.RUN_STATE_PENDING, RunState.RUN_STATE_STARTING, RunState.RUN_STATE_RUNNING}
PATIENCE_S = 900.0
OLDEST = (1, 29)  # Chart.yaml's
NO_KEDA = "rollout.autoscaling.enabled=false"

A = TypeVar("A")
C = TypeVar("C", bound=Connection)


@dataclass
class Cluster:
    """A namespace, and what is done in it."""

    folder: Path
    namespace: str = field(default_factory=lambda: f"perilune-test-{os.getpid()}")
    forwards: dict[tuple[str, int], tuple[int, subprocess.Popen[bytes]]] = field(default_factory=dict)

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    def kubectl(self, *arguments: str) -> str:
        command = [str(program("kubectl")), "--namespace", self.namespace, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def get(self, *what: str) -> list[dict[str, Any]]:
        return json.loads(self.kubectl("get", *what, "--output=json"))["items"]

    def helm(self, command: str, *arguments: str) -> str:
        full = [str(program("helm")), "--namespace", self.namespace, command, RELEASE, *arguments]
        environment = os.environ | {"HELM_PLUGINS": str(Path(__file__).parent)}
        done = subprocess.run(full, check=True, env=environment, stdout=subprocess.PIPE, text=True)
        return done.stdout

    def chart(self) -> list[str]:
        """Helm's arguments for the chart; on an old cluster a copy that may be tried there, turned back."""
        server = json.loads(self.kubectl("version", "--output=json"))["serverVersion"]["gitVersion"]
        if tuple(map(int, re.findall(r"\d+", server)[:2])) >= OLDEST:
            return [str(CHART)]
        copy = self.folder / "chart"
        shutil.copytree(CHART, copy, dirs_exist_ok=True)
        about = copy / "Chart.yaml"
        about.write_text(re.sub(r"^kubeVersion:.*\n", "", about.read_text(), flags=re.MULTILINE))
        return [str(copy), "--post-renderer", "older"]

    def values(self) -> list[str]:
        """The images, requests for a small machine, and no KEDA."""
        given = {f"{service}.resources.requests.cpu": "50m" for service in SERVICES} | {
            "image.registry": os.environ.get("PERILUNE_IMAGES", ""),
            "image.tag": os.environ.get("PERILUNE_TAG", "local"),
            "trainer.resources.requests.memory": "1Gi",
            "trainer.storage.size": "5Gi",
            "rollout.kvCacheGib": "1",
        }
        chosen = [NO_KEDA, *(f"{name}={value}" for name, value in given.items())]
        chosen += [more for more in os.environ.get("PERILUNE_CHART_VALUES", "").split(",") if more]
        return [part for value in chosen for part in ("--set", value)]

    def pods(self, service: str) -> list[str]:
        selector = f"--selector=app.kubernetes.io/component={service}"
        return [
            each["metadata"]["name"]
            for each in self.get("pods", selector)
            if "deletionTimestamp" not in each["metadata"]
        ]

    def until_ready(self) -> None:
        for service in set(SERVICES) - {"trainer"}:
            self.kubectl("rollout", "status", f"deployment/{RELEASE}-{service}", f"--timeout={PATIENCE_S}s")
        for pod in self.pods("trainer"):
            self.kubectl("wait", f"pod/{pod}", "--for=condition=Ready", f"--timeout={PATIENCE_S}s")

    def until_in_fleet(self, service: str, number: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while sum(each.kind == service for each in self.ask("master", RunClient, RunClient.fleet).workers) < number:
            assert time.monotonic() < deadline, f"fewer than {number} of {service} in the fleet"
            time.sleep(1.0)

    def ask(self, service: str, client: type[C], call: Callable[[C], A]) -> A:
        """Calls a service through a port of this machine; again while it, or the pod behind the port, has gone."""
        credentials = Credentials(token_file=self.secrets / "token_operator", tls_ca=self.secrets / "ca.pem")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            port = {"master": 7040, "sandbox": 7050}[service]
            here = self.forward(service, port)
            try:
                with client(f"localhost:{here}", credentials=credentials) as connection:
                    return call(connection)
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
                self.stop_forward(service, port)

    def forward(self, service: str, port: int) -> int:
        key = service, port
        if key not in self.forwards or self.forwards[key][1].poll() is not None:
            here = free_port()
            target = [f"service/{RELEASE}-{service}", f"{here}:{port}"]
            command = [str(program("kubectl")), "--namespace", self.namespace, "port-forward", *target]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert process.stdout
            process.stdout.readline()  # once it listens, or has failed
            self.forwards[key] = (here, process)
        return self.forwards[key][0]

    def stop_forward(self, service: str, port: int) -> None:
        if (service, port) in self.forwards:
            _, process = self.forwards.pop((service, port))
            process.kill()
            process.communicate()

    def run(self) -> Run:
        return self.ask("master", RunClient, lambda client: client.get(RUN))

    def until_version(self, number: int) -> Run:
        """Waits until a version is committed, or the run has ended; the run."""
        while (run := self.run()).state in ACTIVE and run.policy.number < number:
            time.sleep(1.0)
        return run


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.secrets.mkdir()
    subprocess.run(
        [DEPLOY / "secrets" / "make.sh", "--tls"], env=os.environ | {"SECRETS": str(made.secrets)}, check=True
    )
    made.kubectl("create", "namespace", made.namespace)
    try:
        yield made
    finally:
        for service, port in list(made.forwards):
            made.stop_forward(service, port)
        made.kubectl("delete", "namespace", made.namespace, "--timeout=300s")


@pytest.mark.timeout(3600)
def test_the_api_server_takes_every_object_of_every_variant(cluster: Cluster) -> None:
    """Its admission and validation, which look at more than schemas; the objects are not kept."""
    for variant, chosen in VARIANTS.items():
        values = [part for value in (*chosen, NO_KEDA) for part in ("--set", value)]
        rendered = cluster.helm("template", *cluster.chart(), *values)
        manifest = cluster.folder / "manifest.yaml"
        manifest.write_text(rendered)
        taken = cluster.kubectl("create", "--dry-run=server", "--output=name", f"--filename={manifest}").split()
        assert len(taken) == sum(document is not None for document in yaml.safe_load_all(rendered)), variant


@pytest.mark.timeout(3600)
def test_install_learn_scale_delete_upgrade_uninstall(cluster: Cluster) -> None:
    install(cluster)
    cluster.until_ready()
    each_pod_has_its_own_secrets_and_no_token_of_kubernetes(cluster)
    a_program_runs_in_the_sandbox(cluster)
    the_page_comes(cluster)
    recipe = load_recipe(str(REPOSITORY / "recipes" / "search.toml"), QUICK)
    cluster.ask("master", RunClient, lambda client: client.submit(recipe, RUN))
    cluster.until_version(1)
    scale(cluster, "rollout", 2)
    scale(cluster, "reward", 2)
    for service in ("rollout", "master", "trainer"):
        version = cluster.run().policy.number
        cluster.kubectl("delete", "pod", cluster.pods(service)[0], "--wait=false")
        cluster.until_version(min(version + 1, ITERATIONS))
    while (run := cluster.run()).state in ACTIVE:
        time.sleep(1.0)
    it_learned_and_lost_nothing(run)
    cluster.until_ready()
    budgets_let_go_of_workers_only(cluster)
    cluster.helm("upgrade", *cluster.chart(), *cluster.values(), "--set", "rollout.threads=2")
    cluster.until_ready()
    for service in ("rollout", "reward"):
        cluster.until_in_fleet(service, 1)
    it_learned_and_lost_nothing(cluster.run())
    doctor_finds_nothing_wrong(cluster)
    uninstall(cluster)


def install(cluster: Cluster) -> None:
    """As docs/deploy.md has it."""
    cluster.kubectl("create", "secret", "generic", "perilune-secrets", f"--from-file={cluster.secrets}")
    cluster.kubectl("create", "configmap", "nats", f"--from-file={DEPLOY / 'nats' / 'nats-tls.conf'}")
    cluster.kubectl("apply", f"--filename={DEPLOY / 'helm' / 'backends.yaml'}")
    cluster.helm("install", *cluster.chart(), *cluster.values(), "--timeout=15m")


def the_page_comes(cluster: Cluster) -> None:
    trust = ssl.create_default_context(cafile=cluster.secrets / "ca.pem")
    page = f"https://localhost:{cluster.forward('master', 7080)}/"
    with urllib.request.urlopen(page, context=trust, timeout=60) as answer:
        assert "<title>Perilune</title>" in answer.read().decode()


def each_pod_has_its_own_secrets_and_no_token_of_kubernetes(cluster: Cluster) -> None:
    for service in SERVICES:
        (pod,) = cluster.pods(service)
        listed = cluster.kubectl("exec", pod, "--", "ls", "/run/secrets/perilune", "/var/run/secrets").split()
        own = {"tokens.toml", "tls.pem", "tls.key"}
        own |= {"ca.pem", "token", "nats_password"} if service != "sandbox" else set()
        own |= {"postgres_password"} if service == "master" else set()
        files = {name for name in listed if not name.endswith(":")}
        assert files == own | {"perilune"}, service


def a_program_runs_in_the_sandbox(cluster: Cluster) -> None:
    done = cluster.ask("sandbox", SandboxClient, lambda client: client.run("python", "print(6 * 7)"))
    assert done.execution.stdout.content == b"42\n"
    assert done.isolation.level == "user-namespaces"


def scale(cluster: Cluster, service: str, replicas: int) -> None:
    """By hand, and until the new ones are in the fleet."""
    cluster.kubectl("scale", f"deployment/{RELEASE}-{service}", f"--replicas={replicas}")
    cluster.until_in_fleet(service, replicas)


def it_learned_and_lost_nothing(run: Run) -> None:
    assert run.state == RunState.RUN_STATE_FINISHED, run.reason
    assert run.ledger.balanced
    assert run.ledger.trained == NUM_SAMPLES
    sampled = [each.accuracy for each in run.evaluations if each.mode == "sampled"]
    assert sampled[-1] > sampled[0]


def budgets_let_go_of_workers_only(cluster: Cluster) -> None:
    allowed = {
        each["metadata"]["name"].removeprefix(f"{RELEASE}-"): each["status"]["disruptionsAllowed"]
        for each in cluster.get("poddisruptionbudgets")
    }
    assert allowed == {"master": 0, "trainer": 0, "rollout": 1, "reward": 1, "sandbox": 1}


def doctor_finds_nothing_wrong(cluster: Cluster) -> None:
    port = cluster.forward("master", 7040)
    secrets = {"TLS_CA": cluster.secrets / "ca.pem", "TOKEN_FILE": cluster.secrets / "token_operator"}
    done = subprocess.run(
        [sys.executable, "-m", "perilune", "doctor", "--master", f"localhost:{port}", "--json"],
        env=os.environ | {f"PERILUNE_{name}": str(path) for name, path in secrets.items()},
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert [finding for finding in json.loads(done.stdout) if finding["needed"] and not finding["ok"]] == []


def uninstall(cluster: Cluster) -> None:
    """Nothing of the chart stays but the trainer's volume, with the checkpoints."""
    cluster.helm("uninstall")
    kinds = "all,serviceaccounts,persistentvolumeclaims,networkpolicies,poddisruptionbudgets"
    deadline = time.monotonic() + PATIENCE_S
    while left := [
        f"{each['kind']} {each['metadata']['name']}"
        for each in cluster.get(kinds, f"--selector=app.kubernetes.io/instance={RELEASE}")
        if each["kind"] != "PersistentVolumeClaim"
    ]:
        assert time.monotonic() < deadline, left
        time.sleep(1.0)
    assert cluster.kubectl("get", "persistentvolumeclaim", f"{RELEASE}-trainer", "--output=name")
