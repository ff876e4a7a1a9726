"""Turns the chart's objects back to what a Kubernetes before 1.29 knows, so that the rest of them can be tried there.

The chart is not written for such a cluster, and nobody should run it this way: it is for tests/cluster/end_to_end.py.
Reads YAML documents and writes them; an object that was changed says how, in an annotation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import yaml

Object = dict[str, Any]


def apis(obj: Object) -> Iterator[str]:
    """policy/v1 is there since 1.21, autoscaling/v2 since 1.23; what the chart says is the same in their betas."""
    for new, old in (("policy/v1", "policy/v1beta1"), ("autoscaling/v2", "autoscaling/v2beta2")):
        if obj["apiVersion"] == new:
            obj["apiVersion"] = old
            yield f"{new} is {old}"


def indexed_jobs(obj: Object) -> Iterator[str]:
    """Indexed jobs are there since 1.21: a job of one pod is told its index by hand. More pods could not meet so."""
    if obj["kind"] != "Job":
        return
    job = obj["spec"]
    if job.pop("podReplacementPolicy", None):
        yield "podReplacementPolicy (1.28) is left out: a pod's successor may start while it still ends"
    if job.pop("completionMode", None) == "Indexed":
        job["template"]["spec"]["containers"][0]["env"].append({"name": "JOB_COMPLETION_INDEX", "value": "0"})
        yield "completionMode Indexed is left out, and JOB_COMPLETION_INDEX is 0"


def user_namespaces(obj: Object) -> Iterator[str]:
    """hostUsers is there since 1.25. Without it the pod's uid 10001 is the node's."""
    pod = obj.get("spec", {}).get("template", {}).get("spec", {})
    if pod.pop("hostUsers", None) is False:
        yield "hostUsers: false is left out: the pod has no user namespace of its own"


def grpc_probes(obj: Object) -> Iterator[str]:
    """gRPC probes are there since 1.24; the images' own probe asks the same."""
    for container in obj.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []):
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if container.get(probe, {}).pop("grpc", None):
                container[probe]["exec"] = {"command": ["perilune-probe"]}
                yield f"{container['name']}'s {probe} by gRPC is perilune-probe"


def protocols(obj: Object) -> Iterator[str]:
    """Server-side apply does not know the default of a Service's protocol until 1.21; the field is its key."""
    if obj["kind"] == "Service":
        for port in obj["spec"]["ports"]:
            port.setdefault("protocol", "TCP")
        yield "ports say that their protocol is TCP"


STEPS: tuple[Callable[[Object], Iterator[str]], ...] = (apis, indexed_jobs, user_namespaces, grpc_probes, protocols)


def turn_back(obj: Object) -> list[str]:
    """Changes an object in place; what was done, in words."""
    return [what for step in STEPS for what in step(obj)]


def main() -> None:
    objects = [obj for obj in yaml.safe_load_all(sys.stdin) if obj]
    for obj in objects:
        if done := turn_back(obj):
            obj["metadata"].setdefault("annotations", {})["perilune/turned-back"] = "; ".join(done)
    yaml.safe_dump_all(objects, sys.stdout, sort_keys=False)


if __name__ == "__main__":
    main()
