"""Deployments: the images and compose end to end, a hybrid pod's hand-over, and what telemetry costs.

    python benchmarks/deploy.py [--part compose|hybrid|telemetry] [--iterations N] [--set KEY=VALUE …] [--json FILE]

`compose` takes the images as they are (`docker compose build` makes them) in a compose project of its own, with empty
volumes that are removed at the end. Once training has begun, rollout and reward are scaled up and one container after
the other is killed from outside, as by a crash; the run must still end with a balanced ledger. There is no peer: what
is measured is our own packaging. `hybrid` is benchmarks/hybrid.py, `telemetry` benchmarks/telemetry.py.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import hybrid, telemetry
from benchmarks.report import Figure, report

REPOSITORY = Path(__file__).parent.parent
PROJECT = "perilune-benchmark"
SERVICES = ("master", "reward", "sandbox", "trainer", "rollout")
MASTER_PORT, PAGE_PORT = 17540, 17580  # a system that runs already is left alone
API = f"http://127.0.0.1:{PAGE_PORT}/master/v1/"
RUN = "deployed"
PATIENCE_S = 1800.0
ACTIVE = {"RUN_STATE_PENDING", "RUN_STATE_STARTING", "RUN_STATE_RUNNING"}


def compose(*arguments: str, options: str = "") -> str:
    """Runs docker compose in the benchmark's project; what it printed."""
    ports = {"MASTER_PORT": str(MASTER_PORT), "PAGE_PORT": str(PAGE_PORT)}
    environment = os.environ | ports | {"RUN": RUN, "OPTIONS": options}
    command = ["docker", "compose", "--progress", "quiet", "-p", PROJECT, *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


@contextmanager
def clean_project() -> Iterator[None]:
    """Nothing of an earlier benchmark before, nothing of this one after."""
    compose("down", "--volumes", "--timeout", "5")
    try:
        yield
    finally:
        compose("down", "--volumes", "--timeout", "5")


def ask(method: str, **request: Any) -> dict[str, Any]:
    """Calls the master's API, and again while the master is away."""
    message = urllib.request.Request(
        API + method, json.dumps(request).encode(), {"content-type": "application/json"}, method="POST"
    )
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(message, timeout=10) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            if time.monotonic() > deadline:
                raise
            if isinstance(error, urllib.error.HTTPError) and error.code not in (404, 500, 503):
                raise
            time.sleep(0.5)


def until_version(number: int) -> dict[str, Any]:
    """Waits until a version is committed, or the run has ended; the run."""
    while True:
        run = ask("get-run", runId=RUN)["run"]
        committed = run.get("policy") and int(run["policy"]["number"]) >= number
        if committed or run["state"] not in ACTIVE:
            return run
        time.sleep(0.2)


def crash(service: str) -> None:
    """Kills the main process of a service's first container as the kernel would, so that its restart policy acts."""
    container = compose("ps", "-q", service).split()[0]
    top = subprocess.run(["docker", "top", container, "-o", "pid"], check=True, capture_output=True, text=True)
    for pid in reversed(top.stdout.split()[1:]):
        os.kill(int(pid), signal.SIGKILL)


def image_megabytes(service: str) -> float:
    inspect = ["docker", "image", "inspect", "-f", "{{.Size}}", f"perilune-{service}:local"]
    return int(subprocess.run(inspect, check=True, capture_output=True, text=True).stdout) / 1e6


def workers_of(kind: str) -> int:
    return sum(worker["kind"] == kind for worker in ask("get-fleet")["workers"])


def measure(iterations: int, overrides: list[str]) -> dict[str, Figure]:
    options = " ".join(f"--set {one}" for one in [f"trainer.num_iterations={iterations}", *overrides])
    figures = {f"image {service}": Figure(image_megabytes(service), "MB") for service in SERVICES}
    with clean_project():
        started = time.monotonic()
        compose("up", "--detach", "--no-build", "--quiet-pull", options=options)
        until_version(1)
        figures["up to the first training step"] = Figure(time.monotonic() - started, "s")

        scaled = time.monotonic()
        scales = ("--scale", "rollout=2", "--scale", "reward=2", "--scale", "sandbox=2")
        compose("up", "--detach", "--no-build", "--no-recreate", *scales, options=options)
        while workers_of("rollout") < 2 or workers_of("reward") < 2:
            time.sleep(0.2)
        figures["scaled: until the new workers are in the fleet"] = Figure(time.monotonic() - scaled, "s")

        for service in ("rollout", "reward", "master", "trainer", "nats", "postgres"):
            before = until_version(0)["policy"]
            killed = time.monotonic()
            crash(service)
            run = until_version(min(iterations, int(before["number"]) + 1))
            figures[f"{service} killed: until the next version"] = Figure(time.monotonic() - killed, "s")
        while run["state"] in ACTIVE:
            time.sleep(0.5)
            run = ask("get-run", runId=RUN)["run"]
        assert run["state"] == "RUN_STATE_FINISHED", run["reason"]
        assert run["ledger"]["balanced"], run["ledger"]
        figures["up to the end of the run"] = Figure(time.monotonic() - started, "s")
        figures["samples trained"] = Figure(float(run["ledger"]["trained"]), "samples")
        figures["samples lost"] = Figure(float(run["ledger"]["dead"]), "samples")
        first, last = run["evaluations"][0], run["evaluations"][-1]
        figures["held-out accuracy"] = Figure.against(first["accuracy"], last["accuracy"], "share")
    return figures


def hybrid_figures() -> dict[str, Figure]:
    """Medians over the rounds."""
    return {
        name: Figure(statistics.median(values), "MB" if name.startswith("memory") else "s")
        for name, values in hybrid.measure().items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("compose", "hybrid", "telemetry"), default="compose")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.part == "hybrid":
        report("Hybrid pod", hybrid_figures(), arguments.json)
    elif arguments.part == "telemetry":
        report("Telemetry", telemetry.measure(arguments.iterations), arguments.json)
    else:
        report("Images and compose", measure(arguments.iterations, arguments.set), arguments.json)


if __name__ == "__main__":
    main()
