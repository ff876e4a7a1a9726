"""Which engines are tested: those that are installed, and the report says which are not.

vLLM and SGLang are looked for where the rollout service would: in the Python that PERILUNE_ENGINE_PYTHON names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
from transformers import LlamaForCausalLM, PreTrainedModel

from perilune.errors import MissingDependencyError
from perilune.recipe import EngineBase, SglangEngineTable, TorchEngineTable, VllmEngineTable
from services.rollout.config import RolloutSettings
from services.rollout.engines import ENGINES
from services.rollout.engines.installed import find_libraries
from tests.conformance.plain_driver import PLAIN, PlainEngineTable
from tests.unit.rollout.tiny import Caller, tiny_llama

PAGED, SHARED_VLLM = "torch-paged", "vllm-tensor-parallel"
OPTIONS: dict[str, Callable[..., EngineBase]] = {
    "torch": TorchEngineTable,
    PAGED: functools.partial(TorchEngineTable, cache="paged"),
    "vllm": VllmEngineTable,
    SHARED_VLLM: functools.partial(VllmEngineTable, tensor_parallel=2),
    "sglang": SglangEngineTable,
    "plain": PlainEngineTable,
}


@functools.cache
def is_installed(engine: str) -> bool:
    try:
        return engine in ("plain", PAGED) or bool(find_libraries("vllm" if engine == SHARED_VLLM else engine))
    except MissingDependencyError:
        return False


def installed_engines() -> list[str]:
    return [engine for engine in OPTIONS if is_installed(engine)]


def keeping_engines() -> list[str]:
    """Those that may keep contexts."""
    return [engine for engine in installed_engines() if "context_at_swap" in type(OPTIONS[engine]()).model_fields]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tested, absent = installed_engines(), sorted(set(ENGINES) - set(installed_engines()))
    terminalreporter.write_line(
        f"engines tested for conformance: {', '.join(tested)}; not installed in {RolloutSettings().engine_python}: "
        f"{', '.join(absent) or 'none'} (docs/engines.md)"
    )


def llama(seed: int, tied: bool = True, layers: int = 2) -> LlamaForCausalLM:
    """The smallest that every engine can run: vLLM's attention on a CPU wants heads of at least 32 numbers."""
    return tiny_llama(
        seed,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
        architectures=["LlamaForCausalLM"],  # as a trainer's own files say
    )


@pytest.fixture(scope="package", autouse=True)
def _engines_with_plain() -> Iterator[None]:
    """The table has the engine of these tests while they run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, "plain", PLAIN)
        yield


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    """Its head is tied to its embedding, which is where engines err when weights change."""
    return llama(seed=0)


@pytest.fixture(params=keeping_engines())
def keeping_caller(request: pytest.FixtureRequest, model: PreTrainedModel) -> Iterator[Caller]:
    """An engine that goes on from what it has read when weights change."""
    caller = Caller(model, options=OPTIONS[request.param](context_at_swap="keep"))
    yield caller
    caller.engine.close()


@pytest.fixture(scope="module", params=installed_engines())
def caller(request: pytest.FixtureRequest, model: PreTrainedModel) -> Iterator[Caller]:
    """An engine that serves `model` as version 0; tests that load others load version 0 again."""
    caller = Caller(model, options=OPTIONS[request.param]())
    yield caller
    caller.engine.close()
