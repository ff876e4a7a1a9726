"""Says what a run's version 0 is made from, in a digest."""

from __future__ import annotations

import hashlib

from pydantic_core import to_json

from perilune.recipe import Recipe


def origin_of(recipe: Recipe) -> str:
    """A digest of what version 0 is made from: two recipes with the same one start alike.

    Keys at their defaults are left out, so that a key that is new changes no run's.
    """
    parts = recipe.model_dump(mode="json", include={"model", "seed"}, exclude_defaults=True)
    before = [stage.model_dump(mode="json", exclude_defaults=True) for _, stage in recipe.stages_at("before")]
    return hashlib.blake2b(to_json(parts | {"stages": before}), digest_size=16).hexdigest()
