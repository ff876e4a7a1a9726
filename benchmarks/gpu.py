"""Everything that one card decides, in one program: each figure beside its peer and its bar, on the same card.

    python -m benchmarks.gpu [--step NAME …] [--json FILE] [--minutes 8]
    python -m benchmarks.gpu --small        the same program with tiny shapes on the CPU, where no figure means anything
    python -m benchmarks.gpu --step learn   recipes/gpu.toml, which is not one of the steps that run by default

A step is a process of its own with a time limit of its own. One that fails or takes too long is said to have done so,
and the next one begins; what it measured until then counts. Each figure is printed as it comes, as a line of JSON, and
goes to FILE at once. The peers run in the step's own process: Hugging Face's `generate` on the same model, a bare
training loop, a plain copy on the card; bare vLLM has a process of its own, for it does not give its memory back.
benchmarks/gpu.sh installs what is needed from wheels in a folder, without a network, and then runs this.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.report import Figure, report
from perilune.local.cards import ask_machine
from perilune.models.device import Device, why_no_card

ROOT = Path(__file__).resolve().parents[1]
KILL_PATIENCE_S = 5.0
SMALL_LIMIT_S = 300.0  # of a step with tiny shapes: what takes long there is importing, on a machine with more to do


@dataclass(frozen=True)
class Step:
    """A part of the benchmark, which `benchmarks.gpu_steps` has a function for."""

    name: str
    limit_s: float
    what: str


# In order of worth: the time of all together may end before the last one.
STEPS = (
    Step("engine", 80, "torch engine against generate: 1.5B, 256 samples of mixed lengths; and after a swap"),
    Step("trainer", 70, "trainer against a bare loop: 1.5B, rows of 8k, new lengths in every step"),
    Step("weights", 60, "a version of 1.5B from the trainer to the engine on the same card; a delta at 1e-6"),
    Step("vllm", 110, "vLLM through the service against bare vLLM, dummy weights, the engine step's requests"),
    Step("trainer-small", 40, "trainer: 0.6B, rows of 16k"),
    Step("longest-row", 60, "longest row that 1.5B trains on"),
    Step("exact", 25, "engine and trainer in float32 on the card: log-probabilities of the same tokens"),
    Step("hybrid", 60, "trainer and engine of 1.5B hand the card over, both ways"),
    Step("services", 90, "services' overhead of an iteration: 0.5B, 64 x 8 samples of 500 tokens"),
)
LEARN = Step("learn", 330, "recipes/gpu.toml: held-out accuracy before and after")


@dataclass(frozen=True)
class Bar:
    """Describes what a figure, or its ratio to the peer, must reach."""

    value: float
    at_least: bool = True
    of_ratio: bool = False

    def is_met(self, figure: Figure) -> bool:
        """Tests whether a figure reaches it; not, where it has no peer to be compared with."""
        value = (figure.ratio or 0.0) if self.of_ratio else figure.value
        return value >= self.value if self.at_least else value <= self.value

    def in_words(self) -> str:
        """The bar as a sign and a number."""
        return f"{'≥' if self.at_least else '≤'} {self.value:g}"


BARS = {
    "engine: useful tokens/s against generate": Bar(3.0, of_ratio=True),
    "engine: share of the bandwidth bound": Bar(0.25),
    "engine: all samples running again after a swap": Bar(1.5, at_least=False),
    "engine: tokens/s against bare vLLM": Bar(0.6, of_ratio=True),
    "vllm: through the service against bare": Bar(0.95, of_ratio=True),
    "trainer: share of the card's bf16 peak": Bar(0.35),
    "trainer: tokens/s against the bare loop": Bar(0.95, of_ratio=True),
    "trainer-small: share of the card's bf16 peak": Bar(0.25),
    "longest-row: tokens": Bar(65_536),
    "weights: version to served": Bar(0.6, at_least=False),
    "weights: delta, encode and apply": Bar(0.6, at_least=False),
    "hybrid: to the engine": Bar(5.0, at_least=False),
    "hybrid: back to the trainer": Bar(3.0, at_least=False),
    "services: overhead of an iteration": Bar(0.05, at_least=False),
    "exact: largest gap of a log-probability": Bar(1e-4, at_least=False),
}


def main() -> None:
    """Runs the steps that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = {step.name: step for step in (*STEPS, LEARN)}
    parser.add_argument("--step", action="append", choices=list(known), help="which; all but learn if not given")
    parser.add_argument("--small", action="store_true", help="tiny shapes on the CPU, to try the program itself")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all steps together (default: 8)")
    parser.add_argument("--json", type=Path, help="also write the figures here, a line each, as they come")
    arguments = parser.parse_args()
    where = "tiny shapes on the CPU; no figure means anything" if arguments.small else _card_or_exit()
    print(where, flush=True)
    chosen = [known[name] for name in arguments.step] if arguments.step else list(STEPS)
    if arguments.json:
        arguments.json.write_text(json.dumps({"where": where}) + "\n", encoding="utf-8")
    figures, problems = run_steps(chosen, arguments.small, arguments.minutes * 60, arguments.json)
    report(f"On a GPU ({where})", figures)
    for name, figure in figures.items():
        if name in BARS and not arguments.small:
            print(f"{'reached' if BARS[name].is_met(figure) else 'MISSED '}  {BARS[name].in_words():>10}  {name}")
    for step, problem in problems.items():
        print(f"{step}: {problem}")
    sys.exit(1 if problems else 0)


def _card_or_exit() -> str:
    """The card in words; ends the program in words where there is none."""
    machine = ask_machine()
    if problem := why_no_card(machine):
        sys.exit(f"this benchmark needs a GPU: {problem}. With --small it runs tiny shapes on the CPU")
    return Device("cuda", max(machine.cards, key=lambda card: card.free_bytes)).in_words()


def run_steps(
    steps: Sequence[Step], small: bool, limit_s: float, path: Path | None
) -> tuple[dict[str, Figure], dict[str, str]]:
    """Runs steps one after the other; their figures, and by the step's name what went wrong."""
    figures: dict[str, Figure] = {}
    problems: dict[str, str] = {}
    deadline = time.monotonic() + limit_s
    for step in steps:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            problems[step.name] = f"was not begun: the {limit_s:.0f} s of all steps were over"
            continue
        print(f"--- {step.name}: {step.what}", flush=True)
        found, problem = run_step(step, small, min(SMALL_LIMIT_S if small else step.limit_s, left_s))
        if step.name == "vllm":
            found |= _against_vllm(figures | found)
        figures |= found
        if problem:
            problems[step.name] = problem
        _write(step, found, problem, path)
    return figures, problems


def run_step(step: Step, small: bool, limit_s: float) -> tuple[dict[str, Figure], str]:
    """Runs a step in a process of its own, with all that it starts; its figures, and what went wrong or ""."""
    with tempfile.TemporaryDirectory(prefix="perilune-gpu-") as name:
        lines = Path(name) / "figures"
        command = [sys.executable, "-m", "benchmarks.gpu_steps", step.name, str(lines), *(["--small"] * small)]
        environment = os.environ | {"PERILUNE_DEVICE": "cpu" if small else "cuda"}
        child = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
        try:
            status = child.wait(limit_s)
            problem = f"failed with status {status}; its log above says why" if status else ""
        except subprocess.TimeoutExpired:
            problem = f"was ended after its limit of {limit_s:.0f} s"
        finally:
            _end_all(child)
        written = lines.read_text(encoding="utf-8").splitlines() if lines.exists() else []
    return {name: Figure(**figure) for name, figure in map(json.loads, written)}, problem


def _end_all(child: subprocess.Popen[bytes]) -> None:
    """Ends the step's process and what it left behind: they are a session of their own."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        child.wait(KILL_PATIENCE_S)


def _against_vllm(figures: dict[str, Figure]) -> dict[str, Figure]:
    """The torch engine beside bare vLLM, which were given the same requests in different steps."""
    ours = figures.get("engine: useful tokens/s against generate")
    bare = figures.get("vllm: through the service against bare")
    if ours is None or bare is None or not bare.peer:
        return {}
    return {"engine: tokens/s against bare vLLM": Figure.against(bare.peer, ours.value, "tokens/s")}


def _write(step: Step, figures: dict[str, Figure], problem: str, path: Path | None) -> None:
    rows = [
        {"step": step.name, "name": name, **asdict(figure), "bar": BARS[name].in_words() if name in BARS else None}
        for name, figure in figures.items()
    ]
    rows += [{"step": step.name, "problem": problem}] if problem else []
    for row in rows:
        line = json.dumps(row, ensure_ascii=False)
        print(line, flush=True)
        if path:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
