"""The images and compose, as a user has them. `make compose-test` runs this; `make test` does not: it needs Docker, the
built images, and some minutes.

Up, learn a little, look at the page in a browser, scale, kill, go on, down; then the same system with TLS and tokens.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import sync_playwright

from benchmarks.deploy import (
    ACTIVE,
    MASTER_PORT,
    PAGE_PORT,
    RUN,
    ask,
    clean_project,
    compose,
    crash,
    until_version,
    workers_of,
)
from tests.deploy.installation import DEPLOY, REPOSITORY

ITERATIONS = 4
OPTIONS = " ".join(
    f"--set {one}"
    for one in (
        f"trainer.num_iterations={ITERATIONS}",
        "stages.0.num_steps=600",
        "evaluation.num_problems=100",
        f"evaluation.every={ITERATIONS}",
    )
)
NUM_SAMPLES = ITERATIONS * 64 * 8


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    for name, value in getattr(request, "param", {}).items():
        monkeypatch.setenv(name, value)
    subprocess.run([DEPLOY / "secrets" / "make.sh", "--tls"], check=True)
    with clean_project():
        yield


@pytest.mark.timeout(3600)
def test_up_learn_look_scale_kill_go_on() -> None:
    compose("up", "--detach", "--no-build", options=OPTIONS)
    until_version(1)
    look_at_the_page()
    scales = ("--scale", "rollout=2", "--scale", "reward=2", "--scale", "sandbox=2")
    compose("up", "--detach", "--no-build", "--no-recreate", *scales, options=OPTIONS)
    for kind in ("rollout", "reward"):
        while workers_of(kind) < 2:
            until_version(0)
    for service in ("rollout", "master", "postgres", "nats"):
        crash(service)
        ask("get-run", runId=RUN)
    while (run := ask("get-run", runId=RUN)["run"])["state"] in ACTIVE:
        time.sleep(1.0)
    assert run["state"] == "RUN_STATE_FINISHED", run["reason"]
    assert run["ledger"]["balanced"]
    assert int(run["ledger"]["trained"]) == NUM_SAMPLES
    sampled = [each["accuracy"] for each in run["evaluations"] if each["mode"] == "sampled"]
    assert sampled[-1] > sampled[0]
    done = subprocess.run(
        [sys.executable, "-m", "perilune", "doctor", "--master", f"127.0.0.1:{MASTER_PORT}", "--json"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    wrong = [finding for finding in json.loads(done.stdout) if finding["needed"] and not finding["ok"]]
    assert wrong == []


def look_at_the_page() -> None:
    """In a real browser: the run's own page shows it and its curve."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "a browser is needed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{PAGE_PORT}/")
        page.get_by_role("link", name=RUN).first.click()
        page.get_by_role("heading", name=RUN).wait_for()
        page.locator("canvas, svg").first.wait_for()
        browser.close()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "project", [{"COMPOSE_FILE": f"docker-compose.yml{os.pathsep}deploy/compose.tls.yml"}], indirect=True, ids=["tls"]
)
def test_a_run_over_tls(project: None) -> None:
    compose("up", "--detach", "--no-build", "--scale", "rollout=2", options=OPTIONS)
    container = compose("ps", "--all", "--quiet", "submit").strip()
    ended = subprocess.run(["docker", "wait", container], check=True, capture_output=True, text=True)
    assert ended.stdout.strip() == "0"  # its exit status
    assert f"{NUM_SAMPLES:,} dispatched = {NUM_SAMPLES:,} trained" in compose("logs", "--no-log-prefix", "submit")
