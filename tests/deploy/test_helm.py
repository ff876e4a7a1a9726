"""The chart: what Kubernetes and KEDA would take it for, and that it says what the services need said.

There is no API server here. Helm itself renders and lints it; every object is checked against the API's published
schemas with unknown fields refused, and KEDA's against its own definition.
"""

from __future__ import annotations

import functools
import re
import tomllib
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda import v1alpha1

from perilune.runtime.service import ServiceSettings
from perilune.runtime.subjects import PROMPTS, rollout_consumer
from services.master.config import MasterSettings
from services.rollout.config import RolloutSettings
from tests.deploy.charts import CHART, pods, render, run

REPOSITORY = CHART.parents[2]
VERSIONS = ("1.29", "1.37")  # of Kubernetes: the oldest that Chart.yaml allows, and the newest with a schema here
RUN = "rollout.autoscaling.runs={search}"
VARIANTS = {
    "default": (RUN,),
    "plain text": (RUN, "tls=false", "networkPolicies=false"),
    "hybrid": (RUN, "hybrid.enabled=true", "trainer.resources.limits.nvidia\\.com/gpu=8"),
    "ranks": (RUN, "trainer.nodes=2", "trainer.processesPerNode=4", "trainer.storage.accessMode=ReadWriteMany"),
    "gpus": (RUN, "trainer.gpus=8", "trainer.processesPerNode=8", "rollout.gpus=2"),
    "fixed": ("rollout.autoscaling.enabled=false", "reward.autoscaling.enabled=false", "image.registry=reg.example/x/"),
    "observed": ("rollout.autoscaling.prometheus=http://prometheus:9090", "telemetry.endpoint=http://otel:4317"),
    "placed": (
        RUN,
        "trainer.nodeSelector.gpu=h100",
        "trainer.tolerations[0].key=gpu",
        "trainer.tolerations[0].operator=Exists",
        "sandbox.runtimeClassName=gvisor",
        "sandbox.userNamespace=false",
        "sandbox.seccompProfile=",
    ),
}
cached = functools.cache(render)


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_would_take_every_object(variant: str) -> None:
    objects = cached(*VARIANTS[variant])
    kinds = {each["kind"] for each in objects}
    assert {"Deployment", "Job", "Service", "ServiceAccount", "PodDisruptionBudget", "PersistentVolumeClaim"} <= kinds
    for each in objects:
        if each["kind"] == "ScaledObject":
            _check_scaled_object(each)
            continue
        for version in VERSIONS if variant == "default" else VERSIONS[-1:]:
            kubernetes_validate.validate(each, version, strict=True)


def _check_scaled_object(document: dict[str, Any]) -> None:
    """Against KEDA's own definition: what comes out of its model again is what went in, so nothing was unknown."""
    model = v1alpha1.ScaledObject.model_validate(document)
    assert model.model_dump(by_alias=True, exclude_none=True, exclude_unset=True, mode="json") == document


def test_cards_are_asked_for_as_limits() -> None:
    def cards(*values: str) -> dict[str, int | None]:
        return {
            component: pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu")
            for component, pod in pods(cached(*values))
        }

    assert set(cards(*VARIANTS["default"]).values()) == {None}
    asked = cards(*VARIANTS["gpus"])
    assert (asked.pop("trainer"), asked.pop("rollout"), set(asked.values())) == (8, 2, {None})
    trainer = next(pod for component, pod in pods(cached(*VARIANTS["gpus"])) if component == "trainer")
    assert trainer["containers"][0]["resources"]["limits"]["memory"] == "32Gi"  # what was there stays


def test_cards_of_compose_are_reserved_for_trainer_and_rollout() -> None:
    services = yaml.safe_load((REPOSITORY / "deploy/compose.gpu.yml").read_text())["services"]
    plain = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    built = {name: each.get("build", {}).get("args", {}) for name, each in plain.items()}
    assert set(services) == {name for name, arguments in built.items() if {"VARIANT", "VLLM"} & set(arguments)}
    for service in services.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_helm_finds_nothing_to_say_about_it() -> None:
    done = run("lint", str(CHART), "--strict", "--set", RUN)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("rollout.autoscaling.enabled=true", "name rollout.autoscaling.runs"),
        ("tsl=true", "tsl"),
        ("reward.autoscaling.cpuPercent=700", "cpuPercent"),
        ("nats.address=nats://nats:4222", "address"),
        (
            "database.url=postgresql+asyncpg://perilune:secret@postgres/perilune",
            "url",
        ),  # the password has its own place
    ],
)
def test_wrong_values_are_refused_by_name(value: str, said: str) -> None:
    done = run("template", "test", str(CHART), "--set", value)
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_setting_is_one_that_the_service_has(variant: str) -> None:
    known = {
        f"PERILUNE_{name.upper()}"
        for kind in (ServiceSettings, MasterSettings, RolloutSettings)
        for name in kind.model_fields
    }
    for component, pod in pods(cached(*VARIANTS[variant])):
        for container in pod["containers"]:
            names = [variable["name"] for variable in container["env"]]
            assert len(names) == len(set(names)), component
            own = {name for name in names if name.startswith("PERILUNE_")}
            assert own <= known, component


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_mounted_is_there_and_what_is_there_is_mounted(variant: str) -> None:
    for component, pod in pods(cached(*VARIANTS[variant])):
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounts = [mount for container in pod["containers"] for mount in container["volumeMounts"]]
        assert {mount["name"] for mount in mounts} == volumes, component
        for container in pod["containers"]:
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            for variable in container["env"]:
                if str(variable.get("value", "")).startswith("/"):
                    assert any(variable["value"].startswith(path) for path in paths), variable


def test_secrets_are_those_that_are_made_and_each_service_has_its_own() -> None:
    script = (REPOSITORY / "deploy" / "secrets" / "make.sh").read_text()
    services = re.search(r"for name in (nats .*); do certificate", script)
    assert services
    made = {f"{name}.{kind}" for name in services[1].split() for kind in ("pem", "key")}
    made |= {"ca.pem", "tokens.toml", "postgres_password", *re.findall(r"token_\w+", script)}
    made |= {f"token_{name}" for name in re.findall(r"^  caller (\w+)", script, re.MULTILINE)}
    made |= {f"nats_{name}" for name in ("master", "trainer", "rollout", "reward")}
    for component, pod in pods(cached(RUN)):
        (keys,) = [
            {item["key"] for item in volume["secret"]["items"]} for volume in pod["volumes"] if "secret" in volume
        ]
        assert keys <= made
        own = "master" if component == "migrations" else component
        foreign = {key for key in keys - {"ca.pem", "tokens.toml", "postgres_password"} if own not in key}
        assert foreign == set(), component
        if component == "sandbox":
            assert keys == {"tokens.toml", "sandbox.pem", "sandbox.key"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_runs_as_root_or_can_become_it(variant: str) -> None:
    for component, pod in pods(cached(*VARIANTS[variant])):
        assert pod["securityContext"]["runAsNonRoot"], component
        assert pod["automountServiceAccountToken"] is False, component
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"], component
            assert security["allowPrivilegeEscalation"] is False, component
            assert security["capabilities"] == {"drop": ["ALL"]}, component
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, component
            assert "memory" in container["resources"]["limits"], component


def test_probes_ask_for_grpc_health_and_with_tls_by_the_images_own_probe() -> None:
    for variant, wanted in (("default", {"exec": {"command": ["perilune-probe"]}}), ("plain text", None)):
        for component, pod in pods(cached(*VARIANTS[variant])):
            if component == "migrations":
                continue
            (container,) = pod["containers"]
            port = next(port["containerPort"] for port in container["ports"] if port["name"] == "grpc")
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                how = {kind: container[probe][kind] for kind in ("exec", "grpc") if kind in container[probe]}
                assert how == (wanted or {"grpc": {"port": port}}), component


class Network:
    """What the chart's policies let through."""

    def __init__(self, objects: list[dict[str, Any]]) -> None:
        self.policies = {
            each["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: each["spec"]
            for each in objects
            if each["kind"] == "NetworkPolicy"
        }

    def lets(self, source: str, target: str, port: int) -> bool:
        out = _open(self.policies[source]["egress"], "to", target, port)
        return out and _open(self.policies[target]["ingress"], "from", source, port)


def _open(rules: list[dict[str, Any]], side: str, other: str, port: int) -> bool:
    for rule in rules:
        ports = [each["port"] for each in rule.get("ports", [{"port": port}])]
        peers = rule.get(side)
        labels = [peer.get("podSelector", {}).get("matchLabels", {}) for peer in peers or []]
        if port in ports and (
            peers is None or any(each.get("app.kubernetes.io/component") == other for each in labels)
        ):
            return True
    return False


def test_who_must_call_whom_may_and_the_sandbox_reaches_nothing() -> None:
    network = Network(cached(RUN))
    assert network.policies.keys() == {"master", "trainer", "rollout", "reward", "sandbox"}
    for source, target, port in [
        ("trainer", "master", 7040),
        ("rollout", "master", 7040),
        ("reward", "master", 7040),
        ("rollout", "trainer", 7042),
        ("rollout", "rollout", 7043),
        ("reward", "sandbox", 7050),
        ("rollout", "sandbox", 7050),
        ("trainer", "trainer", 29500),
    ]:
        assert network.lets(source, target, port), (source, target, port)
    assert not network.lets("reward", "trainer", 7042)
    sandbox = network.policies["sandbox"]
    assert sandbox["egress"] == []
    assert "Egress" in sandbox["policyTypes"]
    for target in ("master", "trainer", "rollout", "reward"):
        assert not network.lets("sandbox", target, 7040)
    in_turns = Network(cached(*VARIANTS["hybrid"]))  # the engine is in the trainer's pod
    assert in_turns.lets("trainer", "sandbox", 7050)
    ranks = Network(cached(*VARIANTS["ranks"]))
    assert ranks.lets("trainer", "trainer", 41234)
    assert [port for port in range(7040, 7050) if ranks.lets("rollout", "trainer", port)] == [7042, 7043, 7044, 7045]


def test_ports_are_those_that_the_images_listen_on() -> None:
    dockerfile = (REPOSITORY / "deploy" / "images" / "Dockerfile").read_text()
    for component, pod in pods(cached(RUN)):
        if component != "migrations":
            said = re.search(rf"COPY services/{component} .*?PERILUNE_LISTEN=0.0.0.0:(\d+)", dockerfile, re.DOTALL)
            assert said
            (container,) = pod["containers"]
            assert container["ports"][0]["containerPort"] == int(said[1]), component


def test_rollout_is_scaled_by_the_queue_that_the_bus_has() -> None:
    (scaled,) = [each for each in cached(RUN) if each["kind"] == "ScaledObject"]
    (trigger,) = scaled["spec"]["triggers"]
    consumer = rollout_consumer("search")
    assert trigger["type"] == "nats-jetstream"
    assert (trigger["metadata"]["stream"], trigger["metadata"]["consumer"]) == (PROMPTS, consumer.durable)
    assert all(isinstance(value, str) for value in trigger["metadata"].values())  # KEDA takes nothing else
    (deployment,) = [
        each
        for each in cached(RUN)
        if each["kind"] == "Deployment" and each["metadata"]["name"] == scaled["spec"]["scaleTargetRef"]["name"]
    ]
    assert "replicas" not in deployment["spec"]  # or every upgrade would undo what KEDA did
    assert scaled["spec"]["fallback"]["replicas"] >= 1


@pytest.mark.parametrize(("variant", "nodes"), [("default", 1), ("ranks", 2)])
def test_a_budget_covers_every_service_and_one_that_is_alone_is_not_evicted(variant: str, nodes: int) -> None:
    """Kubernetes does not know how many pods a Job should have, so the trainer's budget says how many stay."""
    budgets = {
        each["metadata"]["name"].removeprefix("test-"): each["spec"]
        for each in cached(*VARIANTS[variant])
        if each["kind"] == "PodDisruptionBudget"
    }
    assert budgets.pop("trainer")["minAvailable"] == nodes
    allowed = {service: budget["maxUnavailable"] for service, budget in budgets.items()}
    assert allowed == {"master": 0, "rollout": 1, "reward": 1, "sandbox": 1}


def test_the_trainer_is_a_torchrun_job_with_a_rank_for_each_device() -> None:
    objects = cached(*VARIANTS["ranks"])
    job = trainer_job(objects)
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    (trainer,) = job["spec"]["template"]["spec"]["containers"]
    assert trainer["command"] == ["python3", "-m", "torch.distributed.run"]
    assert {"--nnodes=2", "--nproc-per-node=4"} <= set(trainer["args"])
    (endpoint,) = [argument for argument in trainer["args"] if argument.startswith("--rdzv-endpoint=")]
    subdomain = job["spec"]["template"]["spec"]["subdomain"]
    assert endpoint == f"--rdzv-endpoint={job['metadata']['name']}-0.{subdomain}:29500"
    assert subdomain in {each["metadata"]["name"] for each in objects if each["kind"] == "Service"}
    assert trainer_job(cached(RUN))["spec"]["completions"] == 1


def trainer_job(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (job,) = [each for each in objects if each["kind"] == "Job" and "trainer" in each["metadata"]["name"]]
    return job


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (("hybrid.enabled=true", "trainer.processesPerNode=2"), "does not take turns"),
        (("trainer.nodes=2",), "ReadWriteMany"),
    ],
)
def test_ranks_that_could_not_work_are_refused(values: tuple[str, ...], what: str) -> None:
    done = run("template", "test", str(CHART), *(part for value in values for part in ("--set", value)))
    assert done.returncode != 0
    assert what in done.stderr


def test_trainer_and_engine_of_a_pod_have_the_same_memory_for_what_they_hand_over() -> None:
    trainer, engine = trainer_job(cached(*VARIANTS["hybrid"]))["spec"]["template"]["spec"]["containers"]
    assert trainer["resources"]["limits"]["nvidia.com/gpu"] == 8
    for container in (trainer, engine):
        assert {"name": "PERILUNE_HYBRID", "value": "/dev/shm/perilune"} in container["env"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]


def test_migrations_come_before_a_master_that_needs_them_and_never_while_one_has_the_database() -> None:
    (job,) = [each for each in cached(RUN) if each["metadata"]["name"] == "test-migrations"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["services.master.migrate"]
    assert (REPOSITORY / "services" / "master" / "migrate.py").exists()
    (master,) = [
        each for each in cached(RUN) if each["kind"] == "Deployment" and each["metadata"]["name"] == "test-master"
    ]
    assert master["spec"]["strategy"] == {"type": "Recreate"}  # so that an upgrade's new master may change the schema


def test_versions_are_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == project["version"]
