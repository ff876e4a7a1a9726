"""Training from a terminal: `python -m services.trainer.reward_models.commands ROWS.jsonl --out FOLDER …`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from perilune.errors import InvalidInputError, PeriluneError
from perilune.grading.judge_prompts import PROMPT_FORMS
from perilune.grading.labelled_answers import LabelledAnswer, agreement, read_labelled_answers
from perilune.models.device import Device
from services.trainer.reward_models.plan import Plan

KINDS = ("classic", "judge")
SMALL = "small"  # in place of a model's path: one made on the spot
HELD_OUT_IN = 10  # one question in ten, where no file of held-out answers is given
LEARNING_RATE, SMALL_LEARNING_RATE = 1e-5, 3e-3


def main() -> None:
    """Reads the command line, trains, and writes the reward model."""
    parser = argparse.ArgumentParser(description="Train a reward model on labelled answers.")
    parser.add_argument("rows", type=Path, help="JSONL: question, reference, response, correct; for a judge, reasoning")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write; must not exist yet")
    parser.add_argument("--kind", choices=KINDS, default="classic")
    parser.add_argument("--model", default=SMALL, help=f"a folder, a Hugging Face id, package:NAME, or {SMALL!r}")
    parser.add_argument("--heldout", type=Path, help="labelled answers to measure on; else one question in ten")
    parser.add_argument("--prompt", choices=sorted(PROMPT_FORMS), default="instructed", help="of a judge")
    parser.add_argument("--passes", type=float, default=3.0, help="over the training answers")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, help=f"else {LEARNING_RATE}; {SMALL_LEARNING_RATE} if small")
    parser.add_argument("--max-tokens", type=int, default=2048, help="of what a classic model reads at most")
    parser.add_argument("--device", default=os.environ.get("PERILUNE_DEVICE", "auto"), help="auto, cpu, cuda, cuda:N")
    parser.add_argument("--seed", type=int, default=0)
    try:
        train(parser.parse_args())
    except PeriluneError as error:
        sys.exit(f"error: {error}")


def train(arguments: argparse.Namespace) -> None:
    """Trains, measures on the held-out answers (a classic model), writes the folder."""
    if arguments.out.exists():
        raise InvalidInputError(f"{arguments.out} exists already; name a new folder")
    rows = read_labelled_answers(arguments.rows)
    rows, heldout = (rows, read_labelled_answers(arguments.heldout)) if arguments.heldout else split(rows)
    # torch takes seconds to import: wrong rows are refused before.
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if arguments.kind == "judge":
        _train_judge(arguments, rows)
    else:
        _train_classic(arguments, rows, heldout)
    print(f"wrote {arguments.out}")


def split(rows: Sequence[LabelledAnswer]) -> tuple[list[LabelledAnswer], list[LabelledAnswer]]:
    """Training and held-out rows. All answers to one question lie on the same side."""
    held_out = [zlib.crc32(f"{row.question}\n{row.reference}".encode()) % HELD_OUT_IN == 0 for row in rows]
    train = [row for row, held in zip(rows, held_out, strict=True) if not held]
    heldout = [row for row, held in zip(rows, held_out, strict=True) if held]
    if not (train and heldout):
        raise InvalidInputError(f"{len(rows)} labelled answers are too few to hold some out; give --heldout FILE")
    return train, heldout


def _train_classic(arguments: argparse.Namespace, rows: list[LabelledAnswer], heldout: list[LabelledAnswer]) -> None:
    from services.trainer.policy.sources import load_policy
    from services.trainer.reward_models.classic import RewardModel, opening_of
    from services.trainer.reward_models.small import small_policy
    from services.trainer.reward_models.training import train_classic, triple_of

    if arguments.model == SMALL:
        texts = [opening_of(row.question, row.reference) + row.response for row in rows]
        policy = small_policy(texts, arguments.seed)
    else:
        policy = load_policy(arguments.model)
    model = RewardModel(policy.to(_device(arguments)), arguments.max_tokens)
    plan = _plan(arguments)
    train_classic(model, rows, plan, Progress(plan.num_steps(len(rows))))
    found = agreement(model.probabilities([triple_of(row) for row in heldout]), [row.correct for row in heldout])
    low, high = found.interval
    print(
        f"held out: {found.accuracy:.1%} of {found.num_rows} right [{low:.1%}, {high:.1%}], "
        f"Brier score {found.brier:.3f}, calibration error {found.calibration_error:.3f}"
    )
    model.save(arguments.out, {"num_rows": len(rows), "plan": asdict(plan), "heldout": asdict(found)})


def _train_judge(arguments: argparse.Namespace, rows: list[LabelledAnswer]) -> None:
    from services.trainer.policy.sources import load_policy
    from services.trainer.reward_models.judges import judge_examples
    from services.trainer.reward_models.small import small_policy
    from services.trainer.reward_models.training import train_judge

    examples = judge_examples(rows, arguments.prompt, arguments.seed)
    if arguments.model == SMALL:
        turns = [turn for example in examples for turn in example]
        texts = [message["content"] for turn in turns for message in turn.prompt if isinstance(message, dict)]
        policy = small_policy([*texts, *(str(turn.response) for turn in turns)], arguments.seed)
    else:
        policy = load_policy(arguments.model)
    plan = _plan(arguments)
    train_judge(policy.to(_device(arguments)), examples, plan, Progress(plan.num_steps(len(rows))))
    policy.save(arguments.out)
    facts = {"prompt": arguments.prompt, "num_rows": len(rows), "plan": asdict(plan)}
    (arguments.out / "judge.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _device(arguments: argparse.Namespace) -> Device:
    """The device to train on, which is said; torch takes seconds to import, so that it is asked late."""
    from perilune.models.machine import find_device

    device = find_device(arguments.device)
    print(f"training on {device.in_words()}", flush=True)
    return device


def _plan(arguments: argparse.Namespace) -> Plan:
    rate = arguments.learning_rate or (SMALL_LEARNING_RATE if arguments.model == SMALL else LEARNING_RATE)
    return Plan(arguments.passes, arguments.batch_size, rate, seed=arguments.seed)


class Progress:
    """A line every few seconds."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._started = self._told = time.perf_counter()

    def __call__(self, step: int, loss: float) -> None:
        """Prints a step, unless it printed less than two seconds ago."""
        now = time.perf_counter()
        if now - self._told > 2 or step == self._num_steps:
            self._told = now
            print(f"step {step}/{self._num_steps}  loss {loss:.4f}  {now - self._started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
