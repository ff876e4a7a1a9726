"""The warm-up alone: `python -m services.trainer.stages.sft RECIPE --out FOLDER` writes a Hugging Face folder."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from perilune.errors import PeriluneError, RecipeError
from perilune.recipe import Recipe, load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune a recipe's model on its warm-up traces, and save it.")
    parser.add_argument("recipe", help="a TOML recipe with a [warmup] table")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write; must not exist yet")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the recipe")
    arguments = parser.parse_args()
    try:
        fine_tune(_checked(arguments.recipe, arguments.set, arguments.out), arguments.out)
    except PeriluneError as error:
        sys.exit(f"error: {error}")


def _checked(path: str, overrides: list[str], out: Path) -> Recipe:
    recipe = load_recipe(path, overrides)
    if recipe.warmup is None:
        raise RecipeError(f"{path} has no [warmup] table, so there is nothing to fine-tune on")
    if out.exists():
        raise RecipeError(f"{out} exists already; name a new folder")
    return recipe


def fine_tune(recipe: Recipe, out: Path) -> None:
    """Makes the recipe's model, warms it up with a line of progress every few seconds, and writes it to `out`."""
    # torch takes seconds to import: a wrong recipe is told before.
    from transformers.utils.logging import disable_progress_bar

    from services.trainer.policy.sources import make_policy
    from services.trainer.policy.threads import use_threads
    from services.trainer.stages.warmup import warm_up

    disable_progress_bar()  # it would mix with ours
    assert recipe.warmup is not None
    num_steps, started, told = recipe.warmup.num_steps, time.perf_counter(), 0.0

    def on_step(step: int, loss: float) -> None:
        nonlocal told
        elapsed = time.perf_counter() - started
        if elapsed - told > 2 or step == num_steps:
            told = elapsed
            print(f"step {step}/{num_steps}  loss {loss:.4f}  {elapsed:.0f} s", flush=True)

    use_threads(recipe.trainer.num_threads)
    policy = make_policy(recipe)
    warm_up(policy, recipe, on_step=on_step)
    policy.save(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
