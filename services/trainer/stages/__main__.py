"""A recipe's stages before RL alone: `python -m services.trainer.stages RECIPE --out DIR` writes a model folder."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from perilune.errors import PeriluneError, RecipeError
from perilune.recipe import Recipe, load_recipe

if TYPE_CHECKING:  # torch takes seconds to import: a wrong recipe is refused before
    from services.trainer.stages.runner import StageStep

SAID_EVERY_S = 2.0


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Run a recipe's stages before RL, and save the model.")
    parser.add_argument("recipe", help="a TOML recipe with [[stages]]")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write; must not exist yet")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe")
    arguments = parser.parse_args()
    try:
        make_model(_checked(arguments.recipe, arguments.set, arguments.out), arguments.out)
    except PeriluneError as error:
        sys.exit(f"error: {error}")


def _checked(path: str, overrides: list[str], out: Path) -> Recipe:
    recipe = load_recipe(path, overrides)
    if not recipe.stages_at("before"):
        raise RecipeError(f"{path} has no [[stages]] before reinforcement learning, so there is nothing to do")
    if out.exists():
        raise RecipeError(f"{out} exists already; name a new folder")
    return recipe


def make_model(recipe: Recipe, out: Path) -> None:
    """Makes the recipe's model, runs its stages before RL with a line of progress every few seconds, and writes it.

    Progress is kept in `OUT.progress` until then: the same command goes on from it.
    """
    from transformers.utils.logging import disable_progress_bar

    from perilune.models.machine import find_device
    from services.trainer.policy.sources import make_policy
    from services.trainer.policy.threads import use_threads
    from services.trainer.stages.progress import ProgressFile
    from services.trainer.stages.runner import run_stages
    from services.trainer.versions.origin import origin_of

    disable_progress_bar()  # it would mix with ours
    use_threads(recipe.trainer.num_threads)
    device = find_device(os.environ.get("PERILUNE_DEVICE", "auto"))
    print(f"training on {device.in_words()}", flush=True)
    policy = make_policy(recipe).to(device)
    file = ProgressFile(out.with_name(f"{out.name}.progress"), origin_of(recipe))
    run_stages(recipe.stages_at("before"), policy, recipe, file, on_step=Lines())
    policy.save(out)
    file.remove()
    print(f"wrote {out}")


class Lines:
    """Prints a line now and then, and at each stage's end."""

    def __init__(self) -> None:
        self._started, self._said = time.perf_counter(), 0.0

    def __call__(self, step: StageStep) -> None:
        """Prints a step, at most every SAID_EVERY_S and at the end."""
        elapsed = time.perf_counter() - self._started
        if elapsed - self._said > SAID_EVERY_S or step.step == step.num_steps:
            self._said = elapsed
            place, loss = f"{step.name} step {step.step}/{step.num_steps}", step.metrics["loss"]
            print(f"{place}  loss {loss:.4f}  {elapsed:.0f} s", flush=True)


if __name__ == "__main__":
    main()
