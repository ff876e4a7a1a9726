"""Says what is wrong with a recipe's prompts: they are opened, and looked at together with what is asked of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

from perilune.api.trajectory.v1.trajectory_pb2 import Prompt
from perilune.errors import InvalidInputError, MissingDependencyError
from perilune.recipe import CreateModel, Mistake, Recipe, RowPrompts, recipe_error
from perilune.recipe.preflight import NUM_LOOKED_AT, first_of_each_key, recipe_mistakes
from services.master.prompts import PromptSet, open_prompts
from services.master.prompts.images import LOOKED_AT, ImageAccess
from services.master.samplers import open_sampler

_KEY = re.compile(r"(prompts(?:\.\w+)+)(?:: | (?=do not fit))")


def mistakes(recipe: Recipe) -> list[Mistake]:
    """Data that cannot be read, more problems asked for than there are, a curriculum with nothing to draw, and prompts
    that leave no room to answer.
    """
    return _look(recipe)[1]


def check_submission(recipe: Recipe, others: Sequence[Mistake] = (), access: ImageAccess = LOOKED_AT) -> PromptSet:
    """Opens a recipe's prompts. RecipeError names all that is known to be wrong with the recipe, `others` with it."""
    prompts, found = _look(recipe, access)
    wrong = first_of_each_key([*recipe_mistakes(recipe), *found, *others])
    if wrong or prompts is None:
        raise recipe_error(recipe.name, wrong)
    return prompts


def _look(recipe: Recipe, access: ImageAccess = LOOKED_AT) -> tuple[PromptSet | None, list[Mistake]]:
    """The prompts, if they can be opened, and what is wrong with them."""
    try:
        prompts = open_prompts(recipe.prompts, recipe.seed, access)
    except (InvalidInputError, MissingDependencyError) as error:
        return None, [_named(str(error))]
    return prompts, [
        *_counts(recipe, prompts),
        *_sampler(recipe, prompts),
        *_sight(recipe, prompts),
        *_room(recipe, prompts),
    ]


def _sampler(recipe: Recipe, prompts: PromptSet) -> Iterator[Mistake]:
    try:
        open_sampler(recipe.prompts.sampler, prompts)
    except InvalidInputError as error:
        yield _named(str(error))


def _named(text: str) -> Mistake:
    """A mistake of the data, under the key that the message begins with, where it does."""
    found = _KEY.match(text)
    return Mistake(found[1], text[found.end() :]) if found else Mistake("prompts", text.removeprefix("prompts: "))


def _counts(recipe: Recipe, prompts: PromptSet) -> Iterator[Mistake]:
    wanted = recipe.evaluation.num_problems
    if wanted is not None and wanted > prompts.num_heldout:
        yield Mistake(
            "evaluation.num_problems",
            f"{wanted} problems are more than the {prompts.num_heldout} prompts that are held out; hold more out "
            "(prompts.num_heldout), or ask fewer",
        )


def _sight(recipe: Recipe, prompts: PromptSet) -> Iterator[Mistake]:
    """Rows with images for a model that is made on the spot and reads text alone; what always draws is said already."""
    create = recipe.model.create
    if create is None or create.vision or not isinstance(recipe.prompts, RowPrompts) or recipe.prompts.render:
        return
    seen = [index for index in range(prompts.num_train) if prompts.train(index).images]
    if seen:
        yield Mistake(
            "prompts.images",
            f"{len(seen)} of {prompts.num_train} prompts have images, and the model reads text only: write a "
            "[model.create.vision] table, or images = [] to leave them out",
        )


def _room(recipe: Recipe, prompts: PromptSet) -> Iterator[Mistake]:
    """A model that is made on the spot has a token for every word, so its prompts can be counted here."""
    create, max_tokens = recipe.model.create, recipe.rollout.max_tokens
    if create is None or max_tokens >= create.max_positions:
        return  # said already
    looked_at = [prompts.train(index) for index in range(min(NUM_LOOKED_AT, prompts.num_train))]
    shortest = 1 + min(map(partial(_num_tokens, create), looked_at))
    if shortest + max_tokens > create.max_positions:
        yield Mistake(
            "rollout.max_tokens",
            f"{max_tokens} tokens of a response do not fit behind a prompt of {shortest} into the model's context of "
            f"{create.max_positions}; lower it, or raise model.create.max_positions",
        )


def _num_tokens(create: CreateModel, prompt: Prompt) -> int:
    """Tokens of a prompt: its words, and a slot for each patch of an image."""
    words = sum(len(turn.content.split()) for turn in prompt.messages)
    vision = create.vision
    return words + (len(prompt.images) * (vision.image_size // vision.patch_size) ** 2 if vision else 0)
