"""The page on a run that goes on: started, watched, stopped, resumed from the browser. The test plays the workers."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import grpc
import pytest
from playwright.sync_api import Page, expect

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.master.v1.master_pb2_grpc import FleetServiceStub, RunServiceStub, TrainingServiceStub
from perilune.api.trajectory.v1.trajectory_pb2 import Event, PolicyVersion
from perilune.local.home import free_ports
from perilune.runtime.auth import digest_of
from perilune.runtime.bus import Bus
from perilune.runtime.subjects import event_subject
from tests.conftest import start_nats
from tests.web.conftest import Site, start_master
from tests.web.made import recipe_json

EVENT = Event(
    run_id="watched",
    source="rollout-7",
    kind="swapped_weights",
    iteration=3,
    text="took version 3",
    metrics={"gap_seconds": 0.25},
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    nats, nats_url = start_nats(tmp_path)
    master, ready = start_master(tmp_path, nats_url)
    try:
        yield Site(ready["http"] + "/", ready["address"], nats_url)
    finally:
        for process in (master, nats):
            process.terminate()
            process.wait()


def test_a_run_is_started_watched_stopped_and_resumed(site: Site, page: Page) -> None:
    page.goto(f"{site.page}#/start")
    page.get_by_label("Recipe, as JSON").fill(recipe_json(num_iterations=4))
    page.get_by_label("Name").fill("watched")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name="watched")).to_be_visible()
    state = page.locator("main .chip").first
    expect(state).to_have_text("pending")

    with grpc.insecure_channel(site.address) as channel:
        lease = TrainingServiceStub(channel).AcquireRun(
            m.AcquireRunRequest(trainer_id="trainer-1", weights_address="x:1")
        )
        assignment = next(lease).assignment
        assert assignment.run_id == "watched"
        expect(state).to_have_text("starting")
        version = m.Version(policy=PolicyVersion(number=0, digest="d0"), metrics={"start_seconds": 1.5})
        TrainingServiceStub(channel).CommitVersion(
            m.CommitVersionRequest(run_id="watched", version=version, lease_epoch=assignment.lease_epoch)
        )
        expect(state).to_have_text("running")

        joined = FleetServiceStub(channel).Join(m.JoinRequest(worker_id="rollout-7", kind="rollout", address="y:2"))
        next(joined)
        serving = m.ReportServingRequest(worker_id="rollout-7", run_id="watched", policy=PolicyVersion(number=0))
        FleetServiceStub(channel).ReportServing(serving)
        worker = page.get_by_role("row", name=re.compile("^rollout-7 "))
        expect(worker).to_contain_text("v0")
        expect(page.get_by_role("row", name=re.compile("^rollout-watched ")).locator("td").first).not_to_have_text("0")

        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(asyncio.run, publish_event(site.nats_url)).result()
        line = page.get_by_role("log").locator("li").first
        expect(line).to_contain_text("swapped weights")
        expect(line).to_contain_text("took version 3 · gap seconds 0.25")

        page.get_by_role("button", name="Stop").click()
        assert next(lease).HasField("stop")
        lease.cancel()
        expect(state).to_have_text("stopped")
        page.get_by_role("button", name="Resume").click()
        expect(state).to_have_text("pending")
        joined.cancel()


def test_a_service_that_falls_silent_is_named_on_page_event_and_metric(tmp_path: Path, page: Page) -> None:
    """Within 30 s, and for as long as it lasts; with the container and process to look at."""
    nats, nats_url = start_nats(tmp_path)
    (port,) = free_ports(1)
    master, ready = start_master(tmp_path, nats_url, PERILUNE_METRICS_PORT=str(port))
    heartbeat = m.HeartbeatRequest(
        worker_id="rollout-7", kind="rollout", address="y:2", host="c0ffee", pid=42, run_id="watched"
    )
    try:
        with grpc.insecure_channel(ready["address"]) as channel:
            RunServiceStub(channel).SubmitRun(m.SubmitRunRequest(run_id="watched", recipe_json=recipe_json(4)))
            lease = TrainingServiceStub(channel).AcquireRun(m.AcquireRunRequest(trainer_id="trainer-1"))
            next(lease)
            joined = FleetServiceStub(channel).Join(m.JoinRequest(worker_id="rollout-7", kind="rollout", address="y:2"))
            next(joined)
            FleetServiceStub(channel).Heartbeat(heartbeat)
            page.goto(f"{ready['http']}/#/run/watched")
            worker = page.get_by_role("row", name=re.compile("^rollout-7 "))
            expect(worker).to_contain_text("c0ffee process 42 · y:2")
            expect(worker).to_contain_text(re.compile(r"has been silent since \d\d:\d\d:\d\d"))
            event = page.get_by_role("log").locator("li").first
            expect(event).to_contain_text("rollout-7 has been silent since")
            silent = re.compile(r'^perilune_master_silent_seconds\{.*worker="rollout-7".*\} ([\d.]+)$', re.MULTILINE)
            metrics = urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
            assert 12 < float(silent.search(metrics)[1]) < 30  # type: ignore[index]
            FleetServiceStub(channel).Heartbeat(heartbeat)
            expect(event).to_contain_text("rollout-7 is back after")
            expect(worker).not_to_contain_text("silent")
            joined.cancel()
            lease.cancel()
    finally:
        for process in (master, nats):
            process.terminate()
            process.wait()


async def publish_event(nats_url: str) -> None:
    async with Bus.connect(nats_url, "test") as bus:
        event = Event(time_unix_ns=time.time_ns())
        event.MergeFrom(EVENT)
        await bus.publish(event_subject("watched"), event, "event-1")


def test_a_master_that_asks_who_calls_gets_the_token_that_the_reader_gives(tmp_path: Path, page: Page) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[reader]\nsha256 = "{digest_of("open-sesame")}"\nroles = ["submitter"]\n')
    nats, nats_url = start_nats(tmp_path)
    master, ready = start_master(tmp_path, nats_url, PERILUNE_TOKENS_FILE=str(tokens))
    try:
        page.goto(ready["http"] + "/")
        page.get_by_label("Token").fill("open-sesame")
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_text("There are no runs yet.")).to_be_visible()
        assert json.loads(page.evaluate("JSON.stringify(Object.keys(localStorage))")) == []  # kept for the tab alone
    finally:
        for process in (master, nats):
            process.terminate()
            process.wait()
