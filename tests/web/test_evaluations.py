"""Evaluations on the page: against versions and runs, and sample by sample."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from perilune.api.master.v1.master_pb2 import TaskEvaluation, TaskSample, TaskScore
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.client import EvaluationClient
from tests.conftest import start_nats
from tests.web.conftest import Site, start_master
from tests.web.made import make_run

RUN, OTHER = "measured", "other"
SCRIPT = "<script>document.title = 'taken'</script>"


def evaluation(name: str, task: str, value: float, run_id: str = "", version: int = 0) -> TaskEvaluation:
    return TaskEvaluation(
        id=name, run_id=run_id, model=run_id or "package:small",
        policy=PolicyVersion(number=version, digest="d" * 8),
        task=task, harness="perilune", harness_version="0.1.0",
        scores=[TaskScore(name="pass@1", value=value, low=0.25, high=0.9), TaskScore(name="mean_tokens", value=123.0)],
        num_problems=12, num_samples=12, num_failed=1, settings_json=json.dumps({"temperature": 0.6}),
        time_unix_ns=1_700_000_000_000_000_000, seconds=61, note="12 of 164 problems",
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("home")
    for run_id in (RUN, OTHER):
        make_run(home / "perilune.db", run_id, 10, num_groups=2, group_size=8)
    nats, nats_url = start_nats(home)
    master, ready = start_master(home, nats_url)
    try:
        record(ready["address"])
        yield Site(ready["http"] + "/", ready["address"], nats_url)
    finally:
        for process in (master, nats):
            process.terminate()
            process.wait()


def record(address: str) -> None:
    samples = [
        TaskSample(
            problem=number, problem_id=f"HumanEval/{number}", prompt="Write it.", reference="a test",
            response=f"{SCRIPT} {number}", value=None if number == 2 else float(number % 3 == 0),
            num_tokens=40 + number, evidence={"verdict": "ok"},
        )
        for number in range(12)
    ]  # fmt: skip
    with EvaluationClient(address) as client:
        client.record(evaluation("e1", "humaneval", 0.25, RUN, 4))
        client.record(evaluation("e2", "humaneval", 0.5, RUN, 9), samples)
        client.record(evaluation("e3", "humaneval", 0.375, OTHER, 9))
        client.record(evaluation("e4", "sums", 0.125))


def test_scores_stand_against_versions_and_other_models(site: Site, page: Page) -> None:
    page.goto(site.page)
    page.get_by_role("link", name="Evaluations").click()
    scores = page.get_by_role("region", name="Scores beside each other")
    expect(scores.get_by_role("columnheader")).to_have_text(
        ["Task", "measured v4", "measured v9", "other v9", "package:small"]
    )
    row = scores.get_by_role("row", name=re.compile("humaneval"))
    expect(row.get_by_role("link")).to_have_text(["25.0 %", "50.0 %", "37.5 %"])
    page.get_by_label("Model").select_option(RUN)
    expect(scores.get_by_role("columnheader")).to_have_count(3)
    page.get_by_label("Model").select_option("")
    page.get_by_label("Task").select_option("sums")
    expect(scores.get_by_role("row")).to_have_count(2)


def test_a_runs_page_and_a_comparison_show_their_tasks(site: Site, page: Page) -> None:
    page.goto(f"{site.page}#/run/{RUN}")
    tasks = page.get_by_role("region", name="Tasks", exact=True)
    expect(tasks.get_by_role("row", name=re.compile("humaneval")).get_by_role("link")).to_have_text(
        ["25.0 %", "50.0 %"]
    )
    page.goto(f"{site.page}#/compare/{RUN},{OTHER}")
    row = page.get_by_role("region", name="Tasks", exact=True).get_by_role("row", name=re.compile("humaneval"))
    expect(row.get_by_role("link")).to_have_text(["25.0 %", "50.0 %", "37.5 %"])


def test_an_evaluation_shows_its_figures_and_its_samples(site: Site, page: Page) -> None:
    page.goto(f"{site.page}#/evaluation/e2")
    expect(page.get_by_role("heading", name="humaneval")).to_be_visible()
    expect(page.get_by_text("12 of 164 problems")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("^pass@1"))).to_contain_text("50.0 %[25.0 %, 90.0 %]")
    expect(page.get_by_role("row", name=re.compile("^temperature"))).to_contain_text("0.6")
    samples = page.get_by_role("article")
    expect(samples).to_have_count(10)
    expect(samples.nth(0)).to_contain_text("✓ 1")
    expect(samples.nth(1)).to_contain_text("✗ 0")
    expect(samples.nth(2)).to_contain_text("no score")
    expect(samples.nth(1)).to_contain_text(SCRIPT)  # as text
    page.get_by_role("button", name="Next").click()
    expect(samples).to_have_count(2)
    page.get_by_label("Only those that are wrong").check()
    expect(page.get_by_text("1 to 8 of 8")).to_be_visible()
    expect(page).to_have_title(re.compile("e2"))


def test_an_evaluation_that_is_not_there_is_said(site: Site, page: Page) -> None:
    page.goto(f"{site.page}#/evaluation/e9")
    expect(page.get_by_role("alert")).to_contain_text("there is no evaluation 'e9'")
