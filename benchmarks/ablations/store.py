"""Finished runs, one file each, by what they are made from.

Variants that two claims share are run once, and a command that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from perilune.recipe import Recipe


def run_id(recipe: Recipe, bits: int | None) -> str:
    """A digest of all that decides a run, but for files' names."""
    parts = recipe.model_dump(mode="json", exclude_defaults=True)
    for key in ("path", "heldout_path"):
        if key in parts["prompts"]:
            parts["prompts"][key] = Path(parts["prompts"][key]).name
    return hashlib.blake2b(to_json([parts, bits]), digest_size=8).hexdigest()


class Store:
    """A folder of runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, run: str) -> dict[str, Any] | None:
        """A finished or failed run; None if there is none."""
        file = self._folder / f"{run}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def save(self, run: str, document: dict[str, Any]) -> None:
        """Writes a run whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{run}.{os.getpid()}"
        partial.write_text(json.dumps(document, separators=(",", ":")) + "\n")
        partial.rename(self._folder / f"{run}.json")
