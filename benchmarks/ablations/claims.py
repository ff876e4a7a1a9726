"""The claims, in the order of the page: what is claimed, on which task, by which variants, and what is compared.

Tasks, sizes, measures and comparisons were written down before any of these runs was made. What was tried before is the
base run alone, of seeds that are not used here: how long its warm-up and how high its rate must be for learning to be
seen within fifteen iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from benchmarks.ablations.curated import prompt_files
from benchmarks.ablations.loop import prompt_file
from perilune.recipe import Recipe, check_recipe
from perilune.recipe.overrides import apply_override

Measure = Literal["area", "final", "tokens", "gain", "growth"]
"""Says what of a run is compared.

area    mean held-out accuracy over the evaluations after version 0: how soon and how far it learns
final   held-out accuracy of the last version
tokens  mean length of the last version's held-out responses
gain    final accuracy less that of version 0
growth  final length less that of version 0, tokens
"""

NUM_NUMBERS = 4
BASE: dict[str, Any] = {
    "name": "ablation",
    "model": {
        "create": {
            "task": "search",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_layers": 2,
            "num_heads": 4,
            "max_positions": 96,
        }
    },
    "stages": [
        {
            "type": "warmup",
            "task": "search",
            "options": {"num_numbers": NUM_NUMBERS},
            "num_examples": 28_800,
            "num_steps": 900,
            "batch_size": 32,
            "learning_rate": 5e-3,
        }
    ],
    "prompts": {"source": "task", "name": "search", "options": {"num_numbers": NUM_NUMBERS}},
    "rollout": {"prompts_per_iteration": 32, "group_size": 8, "max_tokens": 48, "max_running": 512},
    "reward": {"graders": [{"name": "exact", "options": {"marker": "answer:", "unordered": True}}]},
    "trainer": {"num_iterations": 15, "steps_per_iteration": 4, "learning_rate": 1e-4, "objective": {"type": "k15"}},
    "evaluation": {"every": 3, "num_problems": 200},
}


@dataclass(frozen=True)
class Variant:
    """Describes what differs from the base: overrides by dotted key, and the bits that the engine's weights are
    rounded to."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    bits: int | None = None
    # From the task; "mixed": several sizes, from a file with labels; "raw", "curated": with planted faults or without.
    prompts: Literal["task", "mixed", "raw", "curated"] = "task"

    def recipe(self, seed: int, folder: Path, overrides: Sequence[str] = ()) -> Recipe:
        """The variant's recipe at a seed; `overrides` are as --set has them, and hold over its own."""
        document = deepcopy(BASE) | {"seed": seed}
        if self.prompts == "mixed":
            document["prompts"] = mixed_prompts(seed, folder)
            document["stages"][0]["options"] = {"num_numbers": 5}
        elif self.prompts != "task":
            document["prompts"] = {"source": "jsonl", **prompt_files(folder, seed, NUM_NUMBERS, self.prompts)}
        for key, value in self.overrides.items():
            *path, last = key.split(".")
            table = document
            for part in path:
                table = table.setdefault(part, {})
            table[last] = value
        for override in overrides:
            apply_override(document, override, Recipe)
        return check_recipe(document)


def mixed_prompts(seed: int, folder: Path) -> dict[str, Any]:
    """96 problems each of three, four and five numbers, the size as difficulty; and as many of each, held out."""
    paths = {
        key: str(prompt_file(folder, (3, 4, 5), count, seed, held_out))
        for key, count, held_out in (("path", 96, False), ("heldout_path", 67, True))
    }
    return {"source": "jsonl", **paths, "labels": ["difficulty"]}


@dataclass(frozen=True)
class Comparison:
    """One variant less another, by one measure; with what the claim says of the sign."""

    variant: str
    against: str
    measure: Measure
    expected: Literal["more", "less", "same"]


@dataclass(frozen=True)
class Claim:
    """One row of the page."""

    name: str
    says: str
    source: str
    task: str  # and why it can show the claim
    variants: Mapping[str, Variant]
    comparisons: Sequence[Comparison]
    num_seeds: int = 5
    limits: str = ""  # what this scale cannot show, known beforehand

    @cached_property
    def seeds(self) -> range:
        return range(self.num_seeds)


SEARCH = (
    "Searching for a pair of four numbers by trial and error. A policy fresh from its warm-up gives up early; giving "
    "up is a wrong answer that can be unlearnt"
)


def objective(kind: str, **keys: Any) -> Variant:
    return Variant({"trainer.objective": {"type": kind, **keys}})


def on_rounded(bits: int, **keys: Any) -> Variant:
    return Variant({"trainer.objective": {"type": "k15", **keys}}, bits=bits)


def against_each(
    variants: Sequence[str], base: str, measure: Measure, expected: Callable[[str], Any]
) -> list[Comparison]:
    return [Comparison(each, base, measure, expected(each)) for each in variants]


BASELINE = Variant()
K15 = "k15"
OTHERS = ("reinforce", "rloo", "grpo", "dr_grpo", "dapo", "ppo", "gspo", "cispo", "dppo", "rest", "sft")
CORRECTIONS = ("truncated", "masked", "sequence", "decoupled", "adaptive", "ais", "m2po")
PARTIAL = {"rollout.budget_tokens": 16, "rollout.max_staleness": 2}

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "negative-gradients",
        "Negative gradients are more sample-efficient than fitting the best or the right samples alone",
        "k1.5 §3.5, Fig. 10",
        SEARCH + ".",
        {K15: BASELINE, "rest": objective("rest"), "sft": objective("sft")},
        [Comparison(K15, "rest", "area", "more"), Comparison(K15, "sft", "area", "more")],
    ),
    Claim(
        "objectives",
        "Objective against objective, with the same prompts, samples and steps",
        "the neighbours (docs/objectives.md)",
        SEARCH + ". The rate is the base run's for all: none was tuned.",
        {K15: BASELINE, **{kind: objective(kind) for kind in OTHERS}},
        against_each(OTHERS, K15, "area", lambda _: "same"),
    ),
    Claim(
        "optimisation",
        "Resetting the optimiser, τ·log Z for the mean, τ, and more off-policy steps change little",
        "k1.5 §2.3.2",
        SEARCH + ".",
        {
            "mean, τ = 0.1, 4 steps": BASELINE,
            "reset": Variant({"trainer.reset_optimizer": True}),
            "log_z": objective("k15", baseline="log_z"),
            "τ = 0.01": objective("k15", tau=0.01),
            "τ = 1": objective("k15", tau=1.0),
            "1 step": Variant({"trainer.steps_per_iteration": 1}),
            "16 steps": Variant({"trainer.steps_per_iteration": 16}),
        },
        against_each(
            ("reset", "log_z", "τ = 0.01", "τ = 1", "1 step", "16 steps"),
            "mean, τ = 0.1, 4 steps",
            "area",
            lambda _: "same",
        ),
    ),
    Claim(
        "length-grows",
        "Accuracy and length grow together",
        "k1.5 §3.3, Fig. 5",
        SEARCH + ", and going on takes tokens.",
        {K15: BASELINE},
        [Comparison(K15, "version 0", "gain", "more"), Comparison(K15, "version 0", "growth", "more")],
    ),
    Claim(
        "length-penalty",
        "A length penalty shortens responses at equal accuracy, and its warm-up matters",
        "k1.5 §2.3.3",
        SEARCH + ".",
        {
            "none": BASELINE,
            "at once": Variant({"reward.length.weight": 0.5}),
            "after 8": Variant({"reward.length.weight": 0.5, "reward.length.warmup_iterations": 8}),
        },
        [
            Comparison("after 8", "none", "tokens", "less"),
            Comparison("after 8", "none", "final", "same"),
            Comparison("after 8", "at once", "area", "more"),
        ],
        limits=(
            "Right responses to one problem are all about as long here: the search has one order. What can be saved is "
            "the tokens of wrong ones."
        ),
    ),
    Claim(
        "curriculum",
        "A curriculum, the whole set first and then hard problems, beats uniform sampling",
        "k1.5 §2.3.4, Fig. 9",
        "Searching for a pair of three, four and five numbers, 288 problems in all, so that each is drawn more than "
        "once; hard is five. Held out is a mixture of the three.",
        {
            "uniform": Variant(prompts="mixed"),
            "curriculum": Variant(
                {"prompts.sampler": {"type": "curriculum", "warmup_iterations": 6, "min_difficulty": 5}},
                prompts="mixed",
            ),
            "prioritized": Variant({"prompts.sampler": {"type": "prioritized"}}, prompts="mixed"),
        },
        [Comparison("curriculum", "uniform", "final", "more"), Comparison("prioritized", "uniform", "final", "more")],
    ),
    Claim(
        "context-against-size",
        "A smaller model with a longer context reaches a larger one with a shorter",
        "k1.5 §3.5, Fig. 8, in kind",
        SEARCH + "; the length limit is how many pairs can be tried.",
        {
            f"{size}, {limit} tokens": Variant(
                {
                    "model.create.hidden_size": size,
                    "model.create.intermediate_size": 2 * size,
                    "rollout.max_tokens": limit,
                }
            )
            for size in (32, 64)
            for limit in (16, 28, 48)
        },
        [
            Comparison("32, 48 tokens", "64, 16 tokens", "final", "more"),
            Comparison("32, 48 tokens", "64, 28 tokens", "final", "more"),
            Comparison("64, 48 tokens", "64, 28 tokens", "final", "more"),
        ],
        num_seeds=3,
    ),
    Claim(
        "partial-rollouts",
        "Partial rollouts learn as whole ones do, whichever segments enter the loss",
        "k1.5 §2.6.2",
        SEARCH + ", with a budget of 16 tokens an iteration, a third of the limit.",
        {
            "whole": BASELINE,
            "current": Variant({"rollout.budget_tokens": 16, "trainer.segments": "current"}),
            "all": Variant({**PARTIAL, "trainer.segments": "all"}),
            "all, corrected": Variant(
                {**PARTIAL, "trainer.segments": "all", "trainer.objective.correction": "decoupled"}
            ),
        },
        against_each(("current", "all", "all, corrected"), "whole", "area", lambda _: "same"),
    ),
    Claim(
        "rounded-rollouts",
        "Rounding the engine's weights hurts, and importance weights get it back",
        "AIS, arXiv:2605.13907; M2PO, arXiv:2510.01161",
        SEARCH
        + ". The engine samples from weights rounded to 8, 4 or 3 bits, row by row; the trainer and the evaluation "
        "have them whole.",
        {
            "exact": BASELINE,
            "8 bits": on_rounded(8),
            "4 bits": on_rounded(4),
            "3 bits": on_rounded(3),
            **{f"3 bits, {kind}": on_rounded(3, correction=kind) for kind in CORRECTIONS},
        },
        [
            Comparison("8 bits", "exact", "area", "same"),
            Comparison("4 bits", "exact", "area", "less"),
            Comparison("3 bits", "exact", "area", "less"),
            *(Comparison(f"3 bits, {kind}", "3 bits", "area", "more") for kind in CORRECTIONS),
        ],
        num_seeds=3,
    ),
    Claim(
        "curation",
        "A set that `perilune curate` made of a raw one teaches more at the same budget",
        "k1.5 §2.1",
        "Searching for a pair of four numbers, 320 problems: 128 good ones, 96 whose reference is another pair, 64 "
        "copies and 32 with only one pair. The curated set is what the command left of them, with the run's own "
        "version 0 as the model that difficulty and guesses are measured by. Both are drawn from for as many "
        "iterations; held out are good problems.",
        {"raw": Variant(prompts="raw"), "curated": Variant(prompts="curated")},
        [Comparison("curated", "raw", "area", "more"), Comparison("curated", "raw", "final", "more")],
        limits="A third of the raw set is wrong; how much is in a set that people use is not known here.",
    ),
)


def find_claim(name: str) -> Claim:
    """The claim of a name. ValueError names those there are."""
    for claim in CLAIMS:
        if claim.name == name:
            return claim
    raise ValueError(f"there is no ablation {name!r}; known are {', '.join(claim.name for claim in CLAIMS)}")
