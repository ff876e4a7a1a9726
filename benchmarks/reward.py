"""The math grader against other graders, on the same labelled pairs: accuracy, speed, and input made to hang.

Every contestant gets the same pairs, one after another, in a process of its own, which is killed if a pair takes longer
than the deadline: such a pair counts as undecided. Throughput is per CPU second of that process. Ours does what the
service does: the cheap stages, and where they do not decide, algebra. Hostile input goes to ours as in the service,
through its worker pool.

    python benchmarks/reward.py [--pairs FILE.jsonl ...] [--json FILE]

A pair has `reference`, `response` and `equal`. Peers: math-verify as verl calls it, equality of strings, and where
installed mathruler (prm800k's grader, which EasyR1 uses).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import logging
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from benchmarks.report import Figure, report
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_OK, GraderChoice
from services.reward.answer_extraction import committed, is_prose
from services.reward.equality.symbolic import symbolic_equal  # noqa: F401 imported before the clock runs
from services.reward.graders import find_grader
from services.reward.graders.grader import GradingSample
from services.reward.processes import Processes
from services.reward.scoring import read_choices, score

CASES = Path(__file__).parents[1] / "tests" / "cases" / "reward"
DEADLINE_S = 5.0  # for one pair
MEMORY_BYTES = 4 << 30
HOSTILE_REFERENCE = "x^2+1"
MAX_HOSTILE_OF_PEERS = 60  # evenly drawn: each that hangs costs the deadline

Contestant = Callable[[str, str], bool | None]
"""Tells whether a response meets a reference; None for undecided."""


@dataclass(frozen=True)
class Result:
    num_pairs: int
    false_positives: int
    false_negatives: int
    undecided: int
    cpu_s: float
    latencies_s: list[float]

    @property
    def accuracy(self) -> float:
        return 1 - (self.false_positives + self.false_negatives + self.undecided) / self.num_pairs

    @property
    def pairs_per_cpu_s(self) -> float:
        return self.num_pairs / self.cpu_s

    def percentile_ms(self, percent: int) -> float:
        return 1000 * statistics.quantiles(self.latencies_s, n=100)[percent - 1]


def perilune(reference: str, response: str) -> bool | None:
    grader = find_grader("math")
    sample, options = GradingSample("", reference, response), grader.read_options({})
    verdict = grader.grade(sample, options)
    if verdict is None:
        assert grader.work
        verdict = grader.work(sample, options)
    return None if verdict.value is None else verdict.value == 1.0


def same_string(reference: str, response: str) -> bool:
    return (committed(response) or "").strip(" $.") == reference.strip(" $.")


def math_verify() -> Contestant:
    """Scores as verl's `reward_score/math_verify.py` calls it: the reference boxed, all of the response parsed."""
    from math_verify.metric import math_metric
    from math_verify.parser import ExprExtractionConfig, LatexExtractionConfig

    verify = math_metric((LatexExtractionConfig(),), (ExprExtractionConfig(), LatexExtractionConfig()))

    def compare(reference: str, response: str) -> bool:
        try:
            return verify([f"\\boxed{{{reference}}}"], [response])[0] == 1.0
        except Exception:  # noqa: BLE001 verl takes any failure for a zero
            return False

    return compare


def mathruler() -> Contestant:
    from mathruler.grader import extract_boxed_content, grade_answer

    def compare(reference: str, response: str) -> bool:
        boxed = extract_boxed_content(response)
        return bool(grade_answer(response if boxed in (None, "None") else boxed, reference))

    return compare


def contestants() -> dict[str, Callable[[], Contestant]]:
    found: dict[str, Callable[[], Contestant]] = {
        "perilune": lambda: perilune,
        "math-verify": math_verify,
        "string match": lambda: same_string,
    }
    if importlib.util.find_spec("mathruler"):
        found["mathruler"] = mathruler
    return found


class Runner:
    """One contestant in a process of its own, which is killed and restarted when a pair takes too long."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def compare(self, reference: str, response: str) -> tuple[bool | Literal["hung"] | None, float, float]:
        """The verdict, CPU seconds and wall seconds; `hung` if the process had to be killed, or died."""
        self._pipe.send((reference, response))
        if self._pipe.poll(DEADLINE_S):
            with contextlib.suppress(EOFError):
                return self._pipe.recv()
        self._process.kill()
        self._start()
        return "hung", DEADLINE_S, DEADLINE_S

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(self._name, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it has imported what it needs


def _serve(name: str, pipe: Any) -> None:
    logging.disable()  # math-verify logs each pair that it cannot read
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    compare = contestants()[name]()
    compare("1", "\\boxed{1}")
    pipe.send(None)
    while True:
        reference, response = pipe.recv()
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            verdict = compare(reference, response)
        except (RecursionError, ValueError, MemoryError, OverflowError):
            verdict = False
        pipe.send((verdict, time.process_time() - cpu, time.perf_counter() - wall))


def measure(name: str, pairs: Sequence[dict[str, Any]]) -> Result:
    with Runner(name) as runner:
        answers = [runner.compare(pair["reference"], pair["response"]) for pair in pairs]
    verdicts = [verdict for verdict, _, _ in answers]
    labels = [pair["equal"] for pair in pairs]
    return Result(
        num_pairs=len(pairs),
        false_positives=sum(found is True and not label for found, label in zip(verdicts, labels, strict=True)),
        false_negatives=sum(found is False and label for found, label in zip(verdicts, labels, strict=True)),
        undecided=sum(found is None or found == "hung" for found in verdicts),
        cpu_s=sum(cpu_s for _, cpu_s, _ in answers),
        latencies_s=[wall_s for _, _, wall_s in answers],
    )


def hostile_responses() -> list[str]:
    responses = []
    for case in read(CASES / "hostile.jsonl"):
        before, unit, times, after = case.get("repeat", ("", case.get("response"), 1, ""))
        responses.append(before + unit * times + after)
    return responses


async def ours_unanswered(responses: Sequence[str]) -> tuple[int, int, float]:
    """(how many were not answered within the deadline, how many were called right, the longest time in s)."""
    choices = read_choices([GraderChoice(name="math")])
    longest, late, right = 0.0, 0, 0
    with Processes(num_processes=1, timeout_s=2.0, memory_bytes=1 << 30) as processes:
        await score(GradingSample("", "1", "\\boxed{\\int_0^1 1 dx}"), choices, processes)  # the pool starts
        for response in responses:
            start = time.perf_counter()
            found = await score(GradingSample("", HOSTILE_REFERENCE, response), choices, processes)
            took = time.perf_counter() - start
            longest, late = max(longest, took), late + (took > DEADLINE_S)
            right += found.status == SCORE_STATUS_OK and found.value == 1.0
    return late, right, longest


def peer_unanswered(name: str, responses: Sequence[str]) -> int:
    """Counts the pairs that hold a peer's process beyond the deadline, or kill it."""
    with Runner(name) as runner:
        return sum(runner.compare(HOSTILE_REFERENCE, response)[0] == "hung" for response in responses)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def in_a_box(pair: dict[str, Any]) -> dict[str, Any]:
    """A bare answer in a box, as the peers want it; pairs about finding the answer stay as they are."""
    response = pair["response"]
    if pair.get("kind") == "extraction" or "box" in response or is_prose(response):
        return pair
    return pair | {"response": f"\\boxed{{{response}}}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, nargs="+", default=[CASES / "math.jsonl", CASES / "math_heldout.jsonl"])
    parser.add_argument("--no-hostile", action="store_true", help="leave out the input that is made to hang")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures: dict[str, Figure] = {}
    for path in arguments.pairs:
        pairs = [in_a_box(pair) for pair in read(path)]
        results = {name: measure(name, pairs) for name in contestants()}
        figures |= _figures(path.stem, results)
    if not arguments.no_hostile:
        figures |= _hostile_figures(hostile_responses())
    report("The math grader on labelled pairs", figures, arguments.json)


def _figures(name: str, results: dict[str, Result]) -> dict[str, Figure]:
    ours, peer = results["perilune"], results["math-verify"]
    figures = {
        f"{name}: pairs": Figure(ours.num_pairs, "pairs"),
        f"{name}: accuracy": Figure.against(100 * peer.accuracy, 100 * ours.accuracy, "%"),
        f"{name}: false positives": Figure(ours.false_positives, "pairs", peer.false_positives),
        f"{name}: false negatives": Figure(ours.false_negatives, "pairs", peer.false_negatives),
        f"{name}: undecided": Figure(ours.undecided, "pairs", peer.undecided),
        f"{name}: throughput": Figure.against(peer.pairs_per_cpu_s, ours.pairs_per_cpu_s, "pairs per CPU s"),
        f"{name}: p50": Figure.against(peer.percentile_ms(50), ours.percentile_ms(50), "ms"),
        f"{name}: p99": Figure.against(peer.percentile_ms(99), ours.percentile_ms(99), "ms"),
    }
    for other, result in results.items():
        if other not in ("perilune", "math-verify"):
            figures[f"{name}: accuracy of {other}"] = Figure(100 * result.accuracy, "%")
            figures[f"{name}: false positives of {other}"] = Figure(result.false_positives, "pairs")
    return figures


def _hostile_figures(responses: list[str]) -> dict[str, Figure]:
    late, right, longest = asyncio.run(ours_unanswered(responses))
    drawn = responses[:: max(1, len(responses) // MAX_HOSTILE_OF_PEERS)]
    figures = {
        "hostile: inputs": Figure(len(responses), "inputs"),
        "hostile: not answered in time": Figure(late, "inputs"),
        "hostile: called right": Figure(right, "inputs"),
        "hostile: longest": Figure(longest, "s"),
    }
    for name in contestants():
        if name not in ("perilune", "string match"):
            figures[f"hostile: not answered in time by {name}, of {len(drawn)}"] = Figure(
                peer_unanswered(name, drawn), "inputs"
            )
    return figures


if __name__ == "__main__":
    main()
