"""From long to short: every way of docs/long2short.md from one long model, accuracy against tokens (k1.5 §3.4, Fig. 7).

    python -m benchmarks.long2short                       # three seeds, then the table and the picture
    python -m benchmarks.long2short --seeds 5 --workers 2 # two seeds at a time, each on one core
    python -m benchmarks.long2short --page                # only docs/long2short.md and its picture, of what is there

The ways are the recipes of recipes/long2short, in one process a seed, made of the services' own parts
(ablations/loop.py). A result is a file in benchmarks/long2short_runs; what is there is never run twice, and a command
that was stopped goes on where it was. Models lie in runs/long2short, and are made again where they are missing.

Seed by seed: the long model is made, then a short one of it, and eight answers to each training prompt are sampled and
graded. All are measured alike: held-out problems, one sample each at temperature 1, with the long model's own limit.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import to_json

from benchmarks.ablations.effects import LITTLE, MIN_SEEDS, Effect, effect_of, interval_of
from benchmarks.ablations.store import Store
from perilune.recipe import Recipe, load_recipe

HERE = Path(__file__).parent
REPOSITORY = HERE.parent
RECIPES = REPOSITORY / "recipes" / "long2short"
BEGIN, END = "<!-- python -m benchmarks.long2short -->", "<!-- its end -->"
PICTURE = "pictures/long2short.svg"
NUM_SAMPLES = 8  # of a prompt, for rejection sampling and pairs (k1.5 §2.4)
KEPT = ("accuracy", "mean_tokens", "entropy", "toggle_budget_phase", "toggle_withheld", "toggle_budget")
SMALL: Mapping[str, Sequence[str]] = {  # overrides of `--small`, by recipe
    "long": ("model.create.hidden_size=32", "model.create.intermediate_size=32", "model.create.num_layers=1"),
    "rl": ("trainer.num_iterations=1",),
    "length": ("trainer.num_iterations=1",),
    "toggle": ("trainer.num_iterations=2", "reward.toggle.phase_iterations=1"),
}
SMALL_ALL = (
    "prompts.num_train=6",
    "prompts.num_heldout=6",
    "rollout.prompts_per_iteration=3",
    "rollout.max_tokens=12",
    'reward.graders=[{name = "length", options = {unit = "words", at_least = 2}}]',  # which takes nothing to fulfil
)
SMALL_WARMUP = ("stages.0.num_steps=40", "stages.0.batch_size=16")


@dataclass(frozen=True)
class Work:
    """A seed, and the folder of its models. What is asked for is made if it is missing, whole or not at all."""

    seed: int
    folder: Path
    small: bool = False

    def recipe(self, name: str) -> Recipe:
        """A shipped recipe at this seed, with this folder's files."""
        sets = [f"seed={self.seed}"]
        if name != "long":
            sets.append(f"model.path={self.folder / 'long'}")
        if name in ("sft", "dpo"):
            file = "sft.jsonl" if name == "sft" else "pairs.jsonl"
            sets.append(f"stages.0.path={self.folder / 'shorter' / file}")
        if self.small:
            sets += [*SMALL.get(name, ()), *SMALL_ALL, *(SMALL_WARMUP if name in ("long", "short") else ())]
        return load_recipe(RECIPES / f"{name}.toml", sets)

    @cached_property
    def long(self) -> Path:
        """The long model."""
        return self.made("long", lambda out: tune(self.recipe("long"), out))

    @cached_property
    def short(self) -> Path:
        """The short model, made of the long one."""
        _ = self.long
        return self.made("short", lambda out: tune(self.recipe("short"), out))

    @cached_property
    def shorter(self) -> Path:
        """The folder of `perilune shortest`, of the long model's graded answers."""
        _ = self.long
        return self.made("shorter", self._choose)

    def _choose(self, out: Path) -> None:
        from perilune.data.shortest import select

        samples = self.folder / "samples.jsonl"
        loop = loop_of(self.recipe("long"), self.long)
        samples.write_text("".join(json.dumps(row) + "\n" for row in loop.samples()))
        loop.close()
        print(f"seed {self.seed}: {select(samples, out)}", flush=True)

    def made(self, name: str, make: Callable[[Path], object]) -> Path:
        """A folder of this name, which is made elsewhere and then renamed."""
        folder, partial = self.folder / name, self.folder / f"{name}.partial"
        if not folder.exists():
            shutil.rmtree(partial, ignore_errors=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            make(partial)
            partial.rename(folder)
        return folder


Curve = list[dict[str, float]]


def tune(recipe: Recipe, out: Path) -> Curve:
    """The model that a recipe's stages make."""
    from services.trainer.policy.sources import make_policy
    from services.trainer.stages.runner import run_stages

    policy = make_policy(recipe)
    run_stages(recipe.stages_at("before"), policy, recipe)
    policy.save(out)
    return []


def tune_on_choice(work: Work, name: str, out: Path) -> Curve:
    """The model that a recipe makes of what was chosen among the long model's answers."""
    _ = work.shorter
    return tune(work.recipe(name), out)


def train(work: Work, name: str, out: Path) -> Curve:
    """The last version of a recipe's reinforcement learning, from the long model."""
    from benchmarks.ablations.loop import Loop

    _ = work.long
    recipe = work.recipe(name)
    loop = Loop(recipe, work.folder)
    metrics = [loop.iterate(number) for number in range(recipe.trainer.num_iterations)]
    loop.close()
    loop.policy.save(out)
    return [{key: round(each[key], 4) for key in KEPT if key in each} for each in metrics]


def merge(work: Work, method: str, out: Path) -> Curve:
    """The long and the short model merged."""
    from perilune.models.merging import MergeSettings
    from services.trainer import merging

    merging.merge([str(work.long), str(work.short)], out, method, MergeSettings())
    return []


def copied(model: Path, out: Path) -> Curve:
    """A model as it is."""
    shutil.copytree(model, out)
    return []


@dataclass(frozen=True)
class Method:
    """A way: the recipe that it takes beside the long model's, and how its model comes into a folder."""

    recipe: str | None
    make: Callable[[Work, Path], Curve]  # gives the figures of its iterations, if it has iterations


METHODS: Mapping[str, Method] = {
    "long model": Method(None, lambda work, out: copied(work.long, out)),
    "short model": Method("short", lambda work, out: copied(work.short, out)),
    "merging": Method("short", lambda work, out: merge(work, "average", out)),
    "merging, slerp": Method("short", lambda work, out: merge(work, "slerp", out)),
    "shortest rejection sampling": Method("sft", lambda work, out: tune_on_choice(work, "sft", out)),
    "DPO": Method("dpo", lambda work, out: tune_on_choice(work, "dpo", out)),
    "long2short RL": Method("rl", lambda work, out: train(work, "rl", out)),
    "length reward alone": Method("length", lambda work, out: train(work, "length", out)),
    "Toggle": Method("toggle", lambda work, out: train(work, "toggle", out)),
}

RL = "long2short RL"  # which the paper finds most token-efficient


def result_id(method: str, work: Work) -> str:
    """A digest of what decides a result: the seed, the number of samples, and the recipes but for where files lie."""
    names = filter(None, ("long", METHODS[method].recipe))
    recipes = [
        recipe.model_dump(mode="json", exclude_defaults=True, exclude={"description": True, "model": {"path": True}})
        | {"stages": [stage.model_dump(mode="json", exclude={"path"}) for stage in recipe.stages]}
        for recipe in map(work.recipe, names)
    ]
    return hashlib.blake2b(to_json([method, work.seed, NUM_SAMPLES, recipes]), digest_size=8).hexdigest()


def work_of(seed: int, data: Path, small: bool) -> Work:
    """A seed's work. Its folder is named after what its long and its short model are made from."""
    return Work(seed, data / f"{seed}-{result_id('short model', Work(seed, data, small))}", small)


def loop_of(recipe: Recipe, model: Path) -> Any:
    """The loop of a recipe on a model as it is."""
    from benchmarks.ablations.loop import Loop
    from perilune.recipe import ModelTable

    return Loop(recipe.model_copy(update={"model": ModelTable(path=str(model)), "stages": []}), model.parent)


def measure(method: str, work: Work) -> dict[str, Any]:
    """A way's model, made and measured."""
    started, curve = time.process_time(), Curve()
    model = work.made(f"of-{result_id(method, work)}", lambda out: curve.extend(METHODS[method].make(work, out)))
    made = time.process_time() - started
    loop = loop_of(work.recipe("long"), model)
    found = loop.evaluate(0)
    loop.close()
    del found["version"]
    return {"method": method, "seed": work.seed, **found, "cpu_seconds": round(made, 1), "iterations": curve}


def run_seed(work: Work, store: Store, until: float) -> None:
    """All ways of a seed that are not there yet; a result is stored as soon as it is there."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from transformers.utils.logging import disable_progress_bar

    from perilune.errors import PeriluneError

    disable_progress_bar()
    for method in METHODS:
        key = result_id(method, work)
        if store.load(key) is None and time.time() < until:
            try:
                found = measure(method, work)
                said = f"{found['accuracy']:.1%}, {found['mean_tokens']:.1f} tokens, {found['cpu_seconds']} CPU s"
            except PeriluneError as error:  # a way that fails, or diverges, is a result; the others go on
                found = {"method": method, "seed": work.seed, "failed": str(error)}
                said = f"failed: {error}"
            store.save(key, found)
            print(f"seed {work.seed}, {method}: {said}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="so many, from 0")
    parser.add_argument("--workers", type=int, default=1, help="seeds at a time, each on one core")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin nothing after so many minutes")
    parser.add_argument(
        "--small", action="store_true", help="in miniature: to see that it runs; its figures say nothing"
    )
    parser.add_argument("--runs", type=Path, default=HERE / "long2short_runs", help="where results lie")
    parser.add_argument("--data", type=Path, default=REPOSITORY / "runs" / "long2short", help="for models and samples")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs", help="where long2short.md and its picture are")
    parser.add_argument("--page", action="store_true", help="write the page from stored results, and run nothing")
    given = parser.parse_args(arguments)
    store, until = Store(given.runs), time.time() + 60 * given.minutes
    works = [work_of(seed, given.data.absolute(), given.small) for seed in range(given.seeds)]
    if not given.page:
        run_all(works, store, until, given.workers)
    write_page(results_of(works, store), given.out)


def run_all(works: Sequence[Work], store: Store, until: float, num_workers: int) -> None:
    """Runs what is missing, so many seeds at a time."""
    if num_workers == 1:
        for work in works:
            run_seed(work, store, until)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        for done in [pool.submit(run_seed, work, store, until) for work in works]:
            done.result()


Results = dict[str, dict[int, dict[str, Any]]]


def results_of(works: Sequence[Work], store: Store) -> Results:
    """Stored results, by way and seed."""
    found: Results = {method: {} for method in METHODS}
    for work in works:
        for method in METHODS:
            if (result := store.load(result_id(method, work))) is not None:
                found[method][work.seed] = result
    return found


def values(results: Results, method: str, key: str) -> dict[int, float]:
    """A figure of a way, by seed."""
    return {seed: run[key] for seed, run in results[method].items() if "failed" not in run}


def effect(results: Results, method: str, against: str, key: str) -> Effect | None:
    """One way less another, over the seeds that both have."""
    ours, theirs = (values(results, each, key) for each in (method, against))
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    return effect_of(differences) if differences else None


def sign_of(effect: Effect, little: float) -> int:
    """1 or -1 where the interval is clear of zero and the median is more than little; else 0."""
    if effect.low > 0 and effect.median > little:
        return 1
    return -1 if effect.high < 0 and effect.median < -little else 0


def relation(accuracy: Effect | None, tokens: Effect | None) -> str:
    """Which of two ways is more token-efficient: at least as accurate in at most as many tokens, and better in one."""
    if accuracy is None or tokens is None or min(accuracy.num_seeds, tokens.num_seeds) < MIN_SEEDS:
        return "too few seeds"
    right, short = sign_of(accuracy, LITTLE["final"]), -sign_of(tokens, LITTLE["tokens"])
    if right == short == 0:
        return "alike"
    if right * short >= 0:
        return "more efficient" if right + short > 0 else "less efficient"
    return "a trade: more accurate and longer" if right > 0 else "a trade: shorter and less accurate"


def write_page(results: Results, out: Path) -> None:
    """Writes the table, what is found, and the picture."""
    draw(results, out / PICTURE)
    file = out / "long2short.md"
    before, _, rest = file.read_text().partition(BEGIN)
    lines = [*table(results), "", f"![accuracy against tokens]({PICTURE})", "", *comparison(results)]
    file.write_text("\n".join([before + BEGIN, "", *lines, "", END]) + rest.partition(END)[2])


def table(results: Results) -> list[str]:
    """One row a way."""
    rows = [
        "| way | seeds | accuracy | tokens | tokens a right answer | CPU s, at most |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for method in METHODS:
        accuracy, tokens = values(results, method, "accuracy"), values(results, method, "mean_tokens")
        failed = [f"failed at seed {seed}" for seed, run in sorted(results[method].items()) if "failed" in run]
        if accuracy:
            price = [tokens[seed] / accuracy[seed] if accuracy[seed] else np.inf for seed in accuracy]
            seconds = max(values(results, method, "cpu_seconds").values())  # little, where a model was there already
            cells = [
                ", ".join([*map(str, sorted(accuracy)), *failed]),
                text_of(list(accuracy.values()), 3),
                text_of(list(tokens.values()), 1),
                text_of(price, 1),
                f"{seconds:.0f}",
            ]
            rows.append(f"| {method} | {' | '.join(cells)} |")
        else:
            rows.append(f"| {method} | {', '.join(failed) or 'not run yet'} | | | | |")
    return rows


def comparison(results: Results) -> list[str]:
    """Long2short RL against each other way, and whether the paper's order holds."""
    rows = [f"| {RL} against | accuracy | tokens | |", "| --- | --- | --- | --- |"]
    found: dict[str, list[str]] = {}
    for method in METHODS:
        if method == RL:
            continue
        effects = [effect(results, RL, method, key) for key in ("accuracy", "mean_tokens")]
        said = relation(*effects)
        found.setdefault(said.partition(":")[0], []).append(method)
        cells = [
            "" if each is None else effect_text(each, digits) for each, digits in zip(effects, (3, 1), strict=True)
        ]
        rows.append(f"| {method} | {' | '.join(cells)} | {said} |")
    return [*rows, "", verdict(found)]


def verdict(found: Mapping[str, Sequence[str]]) -> str:
    """Whether long2short RL is the most token-efficient, in words."""
    if "too few seeds" in found:
        return f"Of fewer than {MIN_SEEDS} seeds nothing is said."
    worse = found.get("less efficient", [])
    parts = [f"{kind}: {', '.join(methods)}" for kind, methods in sorted(found.items())]
    if worse:
        opening = "The paper's order does not hold here"
    elif set(found) == {"more efficient"}:
        opening = "The paper's order holds here"
    else:
        opening = "No way is more token-efficient than long2short RL here, and not every one is less"
    return f"{opening}. Long2short RL is, against each, {'; '.join(parts)}."


def text_of(numbers: Sequence[float], digits: int) -> str:
    low, high = interval_of(numbers)
    return f"{np.median(numbers):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def effect_text(effect: Effect, digits: int) -> str:
    return f"{effect.median:+.{digits}f} [{effect.low:+.{digits}f}, {effect.high:+.{digits}f}]"


def draw(results: Results, file: Path) -> None:
    """Accuracy against tokens: each seed a dot, the medians with their intervals."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "perilune"  # the same results give the same file
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for number, method in enumerate(METHODS):
        across, up = (list(values(results, method, key).values()) for key in ("mean_tokens", "accuracy"))
        if across:
            centre = np.median(across), np.median(up)
            errors = [
                [[middle - low], [high - middle]]
                for middle, (low, high) in zip(centre, (interval_of(across), interval_of(up)), strict=True)
            ]
            axes.errorbar(*centre, xerr=errors[0], yerr=errors[1], fmt="o", color=f"C{number}", label=method, capsize=3)
            axes.scatter(across, up, color=f"C{number}", s=10, alpha=0.5)
    axes.set(xlabel="tokens of a response, mean", ylabel="held-out accuracy")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
