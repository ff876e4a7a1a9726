"""Says what can be known of a recipe before anything is started: every mistake at once, in seconds.

What the recipe alone decides is here. The rest each service says of itself, in `services.NAME.preflight`: whether it
has what the recipe asks of it. The command line asks those that are installed beside it; the master asks its fleet.
Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from inspect import signature
from pathlib import Path
from random import Random
from typing import Any

from perilune.errors import MissingDependencyError
from perilune.local.home import services_root
from perilune.recipe import (
    FolderPrompts,
    Mistake,
    Recipe,
    TaskPrompts,
    WarmupStage,
    mended,
    read_document,
    read_stored_recipe,
    recipe_error,
)
from perilune.tasks import TASKS

SERVICES = ("master", "rollout", "reward", "trainer")  # that have something to say
NUM_LOOKED_AT = 50  # problems of an endless task


def load_checked(path: str | Path, overrides: Sequence[str] = (), *, services: Collection[str] = SERVICES) -> Recipe:
    """Reads a recipe's file and checks all that can be known of it.

    Args:
        services: those that are to run on this machine; of others, files, models and engines are another's.

    Raises:
        RecipeError: names every mistake, of the file and of what it asks for.
    """
    recipe, mistakes = examined(path, overrides, services)
    if recipe is None or mistakes:
        raise recipe_error(str(path), mistakes)
    return recipe


def examined(
    path: str | Path, overrides: Sequence[str] = (), services: Collection[str] = SERVICES
) -> tuple[Recipe | None, list[Mistake]]:
    """Returns what can be read of a recipe's file, and its mistakes. RecipeError if it is no TOML at all."""
    recipe, mistakes = mended(read_document(path, overrides))
    if recipe is None:
        return None, mistakes
    wrong = {mistake.key for mistake in mistakes}
    found = first_of_each_key([*recipe_mistakes(recipe), *service_mistakes(recipe, services)])
    # What was left out of the recipe is looked at as its default, and a complaint about that would be noise.
    return recipe, mistakes + [each for each in found if not any(_touches(each.key, key) for key in wrong)]


def check_here(recipe: Recipe, name: str) -> None:
    """Checks a recipe for the services of this machine. RecipeError names every mistake."""
    if mistakes := first_of_each_key([*recipe_mistakes(recipe), *service_mistakes(recipe)]):
        raise recipe_error(name, mistakes)


def first_of_each_key(mistakes: Iterable[Mistake]) -> list[Mistake]:
    """The mistakes without those that repeat in other words what was said of a key before."""
    found: dict[str, Mistake] = {}
    for mistake in mistakes:
        found.setdefault(mistake.key, mistake)
    return list(found.values())


def recipe_mistakes(recipe: Recipe) -> list[Mistake]:
    """Returns what is wrong whatever machine the run is for."""
    return [mistake for check in CHECKS for mistake in check(recipe)]


def service_mistakes(recipe: Recipe, services: Iterable[str] = SERVICES) -> list[Mistake]:
    """Returns what the services of this machine find wrong; nothing where they are not installed."""
    try:
        root = str(services_root())
    except MissingDependencyError:
        return []
    if root not in sys.path:
        sys.path.append(root)
    mistakes: list[Mistake] = []
    for service in services:
        mistakes += importlib.import_module(f"services.{service}.preflight").mistakes(recipe)
    return mistakes


def main() -> None:
    """`python -m perilune.recipe.preflight`: reads a recipe's JSON, and writes what the graders and environments here
    say of it, wherever it is to run; so the master can ask without importing another service.
    """
    recipe = read_stored_recipe(sys.stdin.read())
    mistakes: list[Mistake] = []
    for service in ("reward", "rollout"):
        with contextlib.suppress(ModuleNotFoundError):  # not here
            mistakes += service_mistakes(recipe, [service])
    print(json.dumps([[each.key, each.text] for each in mistakes if not each.of_machine]))


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint about a misspelt name."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"known are {', '.join(names[:20]) or 'none'}"


def no_room(recipe: Recipe, context: int) -> Iterator[Mistake]:
    """The mistake of a response that could not be as long as is allowed, even without a prompt."""
    if recipe.rollout.max_tokens >= context:
        yield Mistake(
            "rollout.max_tokens",
            f"{recipe.rollout.max_tokens} tokens of a response do not fit beside a prompt into the model's context of "
            f"{context}; lower it, or take a model with a longer context",
        )


def _touches(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


# --- Checks of the recipe alone -----------------------------------------------------------------------------------


def _tasks(recipe: Recipe) -> Iterator[Mistake]:
    for key, name in _named_tasks(recipe):
        if name not in TASKS:
            yield Mistake(key, f"there is no task {name!r}; {nearest(name, TASKS)}")


def _named_tasks(recipe: Recipe) -> Iterator[tuple[str, str]]:
    if recipe.model.create:
        yield "model.create.task", recipe.model.create.task
    for index, stage in enumerate(recipe.stages):
        yield from ((f"stages.{index}.{key}", name) for key, name in stage.tasks.items())
    if isinstance(recipe.prompts, TaskPrompts):
        yield "prompts.name", recipe.prompts.name


def _warmup_options(recipe: Recipe) -> Iterator[Mistake]:
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, WarmupStage) and stage.task in TASKS:
            yield from _trace_options(stage, f"stages.{index}.options")


def _trace_options(table: WarmupStage, key: str) -> Iterator[Mistake]:
    """A task's options are the keyword arguments of its problems and of its traces."""
    task = TASKS[table.task]
    of_problems, of_traces = (_keywords(function) for function in (task.problem, task.trace))
    unknown = table.options.keys() - of_problems - of_traces
    for name in sorted(unknown):
        yield Mistake(f"{key}.{name}", f"{table.task} has no such option; {nearest(name, of_problems | of_traces)}")
    if unknown:
        return
    try:
        problem = task.problem(0, 0, **{name: table.options[name] for name in table.options.keys() & of_problems})  # type: ignore[arg-type]
        task.trace(problem, Random(0), **{name: table.options[name] for name in table.options.keys() - of_problems})
    except (TypeError, ValueError, AttributeError) as error:
        yield Mistake(key, f"do not fit the task {table.task!r}: {error}")
    except MissingDependencyError as error:
        yield Mistake(key.removesuffix("options") + "task", str(error))


def _keywords(function: Callable[..., Any]) -> set[str]:
    parameters = signature(function).parameters.values()
    return {each.name for each in parameters if each.kind is each.KEYWORD_ONLY} - {"held_out"}


def _vocabulary(recipe: Recipe) -> Iterator[Mistake]:
    """A model that is made on the spot knows the words of one task."""
    create = recipe.model.create
    if create is None or create.task not in TASKS:
        return
    known = set(TASKS[create.task].VOCABULARY)
    for key, name in _named_tasks(recipe):
        if name in TASKS and (unknown := sorted(set(TASKS[name].VOCABULARY) - known)):
            words = ", ".join(map(repr, unknown[:5]))
            yield Mistake(key, f"a model made for {create.task!r} has no words for {name!r}, such as {words}")


def _sight(recipe: Recipe) -> Iterator[Mistake]:
    create = recipe.model.create
    if create and create.vision is None:
        yield from unseen_images(recipe, "write a [model.create.vision] table")


def unseen_images(recipe: Recipe, remedy: str) -> Iterator[Mistake]:
    """The mistakes of a recipe that shows images to a model that reads text alone."""
    for key in _keys_of_images(recipe):
        yield Mistake(key, f"shows images, and the model reads text only: {remedy}")


def _keys_of_images(recipe: Recipe) -> Iterator[str]:
    """The keys by which prompts or examples have images, whatever their data are."""
    named = ((key, name) for key, name in _named_tasks(recipe) if key != "model.create.task")
    yield from (key for key, name in named if hasattr(TASKS.get(name), "draw"))
    if recipe.prompts.render:
        yield "prompts.render"
    if isinstance(recipe.prompts, FolderPrompts):
        yield "prompts.source"
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, WarmupStage) and stage.render:
            yield f"stages.{index}.render"


def _context(recipe: Recipe) -> Iterator[Mistake]:
    if recipe.model.create:
        yield from no_room(recipe, recipe.model.create.max_positions)


def _adapter(recipe: Recipe) -> Iterator[Mistake]:
    if recipe.trainer.adapter and recipe.model.create:
        yield from absent_targets(recipe, LLAMA_LINEAR, tied=("lm_head",))


# Of a model that is made on the spot; its head is tied to its embedding, and gets no adapter.
LLAMA_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def absent_targets(recipe: Recipe, layers: Iterable[str], tied: Collection[str] = ()) -> Iterator[Mistake]:
    """Adapters for layers that the model has not, and for those that are tied to another one."""
    assert recipe.trainer.adapter
    for index, target in enumerate(recipe.trainer.adapter.targets):
        key = f"trainer.adapter.targets.{index}"
        if target in tied:
            yield Mistake(key, f"{target} is tied to the embedding and gets no adapter; leave it out")
        elif target not in layers:
            yield Mistake(key, f"no layer is called {target!r}; {nearest(target, layers)}")


def _evaluation(recipe: Recipe) -> Iterator[Mistake]:
    if len(set(recipe.evaluation.modes)) < len(recipe.evaluation.modes):
        yield Mistake("evaluation.modes", "names a mode twice")


CHECKS: tuple[Callable[[Recipe], Iterator[Mistake]], ...] = (
    _tasks,
    _warmup_options,
    _vocabulary,
    _sight,
    _context,
    _adapter,
    _evaluation,
)


if __name__ == "__main__":
    main()
