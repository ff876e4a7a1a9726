"""What a hostile caller can take of a running master: memory, descriptors, the log, and other callers' time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.master.v1.master_pb2_grpc import RunServiceStub
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_TRAIN, ScoredTrajectory, Segment, Trajectory
from perilune.codec import pack
from perilune.recipe import check_recipe
from perilune.runtime.auth import digest_of
from services.master.records import Group, Scored
from services.master.store import Store
from services.master.tables import SampleState
from tests.integration.test_master import RECIPE, master_on

MIB = 1 << 20


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    address: str
    http: str
    log: Path

    def peak_mib(self) -> float:
        """The most memory that it ever had."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@contextlib.contextmanager
def master(home: Path, nats_url: str, max_files: int | None = None, **settings: str) -> Iterator[Running]:
    ready, log = home / "ready.json", home / "master.log"
    given = {
        "PERILUNE_LISTEN": "127.0.0.1:0",
        "PERILUNE_HTTP_LISTEN": "127.0.0.1:0",
        "PERILUNE_NATS_URL": nats_url,
        "PERILUNE_HOME": str(home),
        "PERILUNE_READY_FILE": str(ready),
    }
    limit = f"--nofile={max_files or resource.getrlimit(resource.RLIMIT_NOFILE)[0]}"
    with log.open("wb") as output:
        command = ["prlimit", limit, sys.executable, "-m", "services.master"]
        process = subprocess.Popen(command, env=os.environ | given | settings, stderr=output)
    try:
        while not ready.exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert process.wait(0.02) is None, log.read_text()
        facts = json.loads(ready.read_text())
        yield Running(process, facts["address"], facts["http"], log)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("method", ["perilune.api.master.v1.RunService/SubmitRun", "grpc.health.v1.Health/Check"])
async def test_what_a_stranger_sends_is_not_read(nats_url: str, tmp_path: Path, method: str) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[alice]\nsha256 = "{"0" * 64}"\nroles = ["admin"]\n')
    body = b"\x12\x80\x80\x80\x18" + b"x" * (48 * MIB)  # a text of 48 MiB
    with master(tmp_path, nats_url, PERILUNE_TOKENS_FILE=str(tokens)) as running:
        before = running.peak_mib()

        async def call() -> str:
            options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(running.address, options) as channel:
                try:
                    await channel.unary_unary(f"/{method}")(body, timeout=60)
                except grpc.aio.AioRpcError as error:
                    return error.code().name
                return "OK"

        codes = set(await asyncio.gather(*(call() for _ in range(12))))
        assert codes == {"OK" if "health" in method else "UNAUTHENTICATED"}
        assert running.peak_mib() - before < 64


async def test_a_page_of_samples_is_bounded_whatever_is_asked_for(nats_url: str, tmp_path: Path) -> None:
    num_groups, payload = 20, sample(num_tokens=250_000)
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/perilune.db") as store:
        await store.add_run("run", check_recipe(RECIPE).model_dump_json())
        await store.add_groups([Group(f"run.0.{i}", "run", 0, PURPOSE_TRAIN, "", i, i, 1) for i in range(num_groups)])
        await store.record_scores(
            [Scored(f"run.0.{i}", 0, SampleState.SCORED, payload, 250_000, value=1.0) for i in range(num_groups)]
        )
    with master(tmp_path, nats_url) as running, grpc.insecure_channel(running.address, BIG) as channel:
        runs, before = RunServiceStub(channel), running.peak_mib()
        request = m.ListSamplesRequest(run_id="run", purpose=PURPOSE_TRAIN, limit=(1 << 32) - 1)
        found: list[ScoredTrajectory] = []
        while len(found) < num_groups:
            request.offset = len(found)
            answer = runs.ListSamples(request)
            assert answer.num_samples == num_groups
            assert len(answer.samples) * len(payload) <= 16 * MIB
            found += answer.samples
        assert running.peak_mib() - before < 150
        assert {one.trajectory.id for one in found} == {"sample"}
        for field in ("iteration", "offset"):
            request = m.ListSamplesRequest(run_id="run", purpose=PURPOSE_TRAIN)
            setattr(request, field, (1 << 64 if field == "iteration" else 1 << 32) - 1)
            assert not runs.ListSamples(request).samples


BIG = [("grpc.max_receive_message_length", -1)]


def sample(num_tokens: int) -> bytes:
    tokens = pack(np.zeros(num_tokens, np.int32))
    trajectory = Trajectory(id="sample", segments=[Segment(tokens=tokens, logprobs=tokens)])
    return ScoredTrajectory(trajectory=trajectory).SerializeToString()


def test_silent_connections_keep_no_one_out_and_fill_no_log(nats_url: str, tmp_path: Path) -> None:
    """1,100 half-open requests at a limit of 1,024 open files."""
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(master(tmp_path, nats_url, max_files=1024))
        host, _, port = running.http.removeprefix("http://").partition(":")
        for _ in range(1100):
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            with contextlib.suppress(OSError):  # it was one of those that made room
                connection.sendall(b"GET / HTTP/1.1\r\n")
        with urllib.request.urlopen(f"{running.http}/master/v1/list-runs", timeout=10) as answer:
            assert json.loads(answer.read()) == {"runs": []}
        with grpc.insecure_channel(running.address) as channel:
            assert not RunServiceStub(channel).ListRuns(m.ListRunsRequest(), timeout=10).runs
        assert len(os.listdir(f"/proc/{running.process.pid}/fd")) < 700
        assert running.log.stat().st_size < 100_000


def submission(name: str, prompts: dict[str, object]) -> m.SubmitRunRequest:
    return m.SubmitRunRequest(run_id=name, recipe_json=json.dumps(RECIPE | {"prompts": prompts}))


async def test_prompts_that_cannot_be_read_hold_up_no_other_submission(nats_url: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "folder" / "train.jsonl")
    with (tmp_path / "huge.jsonl").open("wb") as file:
        file.truncate(1 << 40)  # sparse: it takes no room on the disk
    paths = [tmp_path / "pipe.jsonl", tmp_path / "folder", tmp_path / "huge.jsonl", *map(Path, SPECIAL)]
    wrong = [{"source": "jsonl", "path": str(path)} for path in paths]
    wrong += [{"source": "file", "path": [str(path)], "format": "parquet"} for path in paths]
    wrong += [{"source": "huggingface", "dataset": str(path)} for path in (*paths[:2], "/dev/zero")]
    wrong += [{"source": "task", "name": "search", "num_train": 30_000_000}]
    with master(tmp_path, nats_url) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            runs = RunServiceStub(channel)

            async def refusal(number: int, prompts: dict[str, object]) -> str:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await runs.SubmitRun(submission(f"wrong-{number}", prompts), timeout=60)
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, (prompts, caught.value.details())
                return caught.value.details() or ""

            submitting = [asyncio.create_task(refusal(*each)) for each in enumerate(wrong * 2)]
            right = {"source": "task", "name": "search", "num_train": 100, "num_heldout": 5}
            await runs.SubmitRun(submission("right", right), timeout=60)
            said = await asyncio.gather(*submitting)
            assert any("is no regular file" in text for text in said)
            assert any("says no size" in text for text in said)
            assert any("larger than 1 GiB" in text for text in said)
            assert [run.id for run in (await runs.ListRuns(m.ListRunsRequest())).runs] == ["right"]
        assert running.peak_mib() < 400


SPECIAL = ("/dev/zero", "/proc/self/pagemap", "/proc/self/mem", "/dev/null")


async def test_a_submitter_names_no_file_of_the_masters(
    nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was refused and done stands in the audit log."""
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[alice]\nsha256 = "{digest_of("a")}"\nroles = ["submitter"]\n')
    monkeypatch.setenv("PERILUNE_TOKENS_FILE", str(tokens))
    metadata = (("authorization", "Bearer a"),)
    async with master_on(nats_url, tmp_path) as master:
        theirs = RECIPE | {"prompts": {"source": "jsonl", "path": "/etc/passwd"}}
        request = m.SubmitRunRequest(run_id="run", recipe_json=check_recipe(theirs).model_dump_json())
        with pytest.raises(grpc.aio.AioRpcError, match="PERILUNE_DATA_FOLDERS"):
            await master.runs.SubmitRun(request, metadata=metadata)
        request.recipe_json = check_recipe(RECIPE).model_dump_json()
        await master.runs.SubmitRun(request, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError, match="do not cover"):
            await master.training.FailRun(m.FailRunRequest(run_id="run"), metadata=metadata)
        await master.runs.StopRun(m.StopRunRequest(run_id="run"), metadata=metadata)
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["caller"], line["action"]) for line in lines] == [
        ("alice", each) for each in ("submit", "submit", "stop")
    ]
    assert ["refused" in line for line in lines] == [True, False, False]
