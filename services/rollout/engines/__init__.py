"""Inference engines. A new one is a file here and a row in the table; `rollout.engine` of a recipe names it."""

from __future__ import annotations

from importlib import import_module

from perilune.errors import InvalidInputError
from services.rollout.engines.base import EngineFactory

ENGINES = {
    "sglang": "services.rollout.engines.process.engine:sglang_engine",
    "torch": "services.rollout.engines.embedded.engine:TorchEngine",
    "vllm": "services.rollout.engines.process.engine:vllm_engine",
}


def engine_factory(name: str) -> EngineFactory:
    """The engine of that name, imported only now. InvalidInputError for a name that is not in the table."""
    if name not in ENGINES:
        raise InvalidInputError(f"there is no engine {name!r}; known are {', '.join(sorted(ENGINES))}")
    module, _, attribute = ENGINES[name].partition(":")
    factory: EngineFactory = getattr(import_module(module), attribute)
    return factory
