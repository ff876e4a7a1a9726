"""`[rollout.engine]`: inference engines and their keys; their code is in services/rollout/engines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from perilune.table import PositiveInt, Table

# When weights change under a running sample, its context is read again by the new version, so that a token's
# log-probability is of one version on all that came before; or it is kept as the version before had read it, which
# costs nothing and is not exact.
ContextAtSwap = Literal["reread", "keep"]


class EngineBase(Table):
    """An inference engine: turns token ids into token ids; its kinds are in services/rollout/engines."""

    type: str

    @property
    def is_exact(self) -> bool:
        """Tests whether a token's log-probability is that of its version's own weights on the whole context before
        it."""
        return True


class TorchEngineTable(EngineBase):
    """The embedded engine, in plain PyTorch inside the rollout service; services/rollout/engines/embedded."""

    type: Literal["torch"] = "torch"
    # Weights rounded to int8, a scale for each output, and computed with in `model.dtype`. It shows what a quantised
    # engine does to learning, and is no faster.
    quantization: Literal["none", "int8"] = "none"
    context_at_swap: ContextAtSwap = "reread"
    # Where keys and values lie: in slots (a row for each sample, the fastest on a CPU) or in pages (blocks that samples
    # share and give up, made for a card). `auto` takes the one that is made for the device.
    cache: Literal["auto", "slots", "paged"] = "auto"

    @property
    def is_exact(self) -> bool:
        """True if the engine computes what the trainer computes: no quantisation, contexts reread at a swap."""
        return self.quantization == "none" and self.context_at_swap == "reread"


class VllmEngineTable(EngineBase):
    """vLLM, in a process of its own; services/rollout/engines/process/vllm_driver.py."""

    type: Literal["vllm"] = "vllm"
    # Processes that share the model, a card each; the card of each comes from CUDA_VISIBLE_DEVICES of the worker.
    tensor_parallel: PositiveInt = 1
    context_at_swap: ContextAtSwap = "reread"

    @property
    def is_exact(self) -> bool:
        """True if the engine computes what the trainer computes: no quantisation, contexts reread at a swap."""
        return self.context_at_swap == "reread"


class SglangEngineTable(EngineBase):
    """SGLang, in a process of its own, which has no keys; services/rollout/engines/process/sglang_driver.py."""

    type: Literal["sglang"] = "sglang"


def _whole(value: object) -> object:
    """The table that `engine = "vllm"` stands for; one that does not say its type is the embedded engine's."""
    if isinstance(value, str):
        return {"type": value}
    return {"type": "torch", **value} if isinstance(value, dict) else value


EngineTable = Annotated[
    TorchEngineTable | VllmEngineTable | SglangEngineTable, Field(discriminator="type"), BeforeValidator(_whole)
]
