"""Inference engines. A new one is a file here, a class of its keys in perilune/recipe/engines.py, and a row below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from perilune.errors import InvalidInputError
from services.rollout.engines.base import Engine, EngineSpec


@dataclass(frozen=True)
class EngineRow:
    """Describes where an engine is, and what it needs."""

    place: str  # module:class; it is imported only when such an engine is made
    libraries: tuple[str, ...] = ()  # modules that must be installed
    takes_images: bool = False  # of prompts, where its model sees
    is_driver: bool = False  # the class is a `Driver`, in a process of its own that PERILUNE_ENGINE_PYTHON runs


ENGINES = {
    "torch": EngineRow("services.rollout.engines.embedded.engine:TorchEngine", ("torch", "transformers"), True),
    "vllm": EngineRow("services.rollout.engines.process.vllm_driver:VllmDriver", ("vllm",), True, is_driver=True),
    "sglang": EngineRow("services.rollout.engines.process.sglang_driver:SglangDriver", ("sglang",), is_driver=True),
}


def make_engine(spec: EngineSpec) -> Engine:
    """Makes the engine that `spec.options` asks for. InvalidInputError: it is in no row, or cannot run this model."""
    row = find_row(spec.options.type)
    if row.is_driver:
        from services.rollout.engines.process.engine import ProcessEngine

        return ProcessEngine(spec, row.place, takes_images=row.takes_images)
    module, _, name = row.place.partition(":")
    factory: Callable[[EngineSpec], Engine] = getattr(import_module(module), name)
    return factory(spec)


def find_row(engine: str) -> EngineRow:
    """Finds an engine's row by its type. InvalidInputError if it has none."""
    if engine not in ENGINES:
        raise InvalidInputError(f"there is no engine {engine!r}; known are {', '.join(sorted(ENGINES))}")
    return ENGINES[engine]
