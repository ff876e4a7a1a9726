"""Training low-rank adapters instead of the whole policy (LoRA, arXiv:2106.09685 §4.1): W stays, B A is learnt.

Each adapted layer computes x Wᵀ + (α/r) · x Aᵀ Bᵀ. A is drawn as PEFT draws it, B is zero, so version 0 is the base.
What is published are the factors (`perilune.weights.adapted`), under PEFT's names and with PEFT's configuration.

Left out: dropout (the trainer's log-probabilities must be those of the engines) and adapted embeddings.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from perilune.errors import InvalidInputError
from perilune.models.attention.interface import text_part
from perilune.recipe import AdapterTable
from perilune.weights.adapted import A_SUFFIX, B_SUFFIX, PREFIX
from services.trainer.policy.logprobs import token_logprobs
from services.trainer.policy.packing import PackedRow


class AdaptedLinear(nn.Linear):
    """A linear layer whose own weight stays. Shapes: A (r, in), B (out, r)."""

    def __init__(self, base: nn.Linear, table: AdapterTable) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.scale = table.alpha / table.rank
        # Drawn on the CPU, so that a seed gives the same adapter on every device.
        drawn = torch.empty(table.rank, base.in_features, dtype=base.weight.dtype, device="cpu")
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5))
        self.lora_A = nn.Parameter(drawn.to(base.weight.device))
        self.lora_B = nn.Parameter(base.weight.new_zeros(base.out_features, table.rank))
        self.is_adapted = True  # off only while `unadapted` asks for the base

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, with the adapter's share if it is on."""
        base = super().forward(x)
        return base if not self.is_adapted else base + self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)

    def merged(self) -> Tensor:
        """The weight that computes the same without an adapter, to rounding."""
        return self.weight + self.scale * self.lora_B @ self.lora_A


def adapt(model: PreTrainedModel, table: AdapterTable, seed: int) -> None:
    """Gives the targets adapters, in place; nothing else is trained any more. InvalidInputError as `check_targets`."""
    check_targets(model, table)
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in _linear(model).items():
            parent, _, last = name.rpartition(".")
            if last in table.targets:
                setattr(model.get_submodule(parent), last, AdaptedLinear(module, table))


def check_targets(model: PreTrainedModel, table: AdapterTable) -> None:
    """InvalidInputError if a target is no linear layer of the model, or one whose weight is another layer's too.

    A weight that is used twice has no place for what changes one of the uses: merged, it could not be saved.
    """
    last_names = {name.rpartition(".")[2] for name in _linear(model)}
    if missing := set(table.targets) - last_names:
        known = ", ".join(sorted(last_names))
        raise InvalidInputError(f"trainer.adapter.targets: no layer is called {min(missing)!r}; there are {known}")
    owners = Counter(id(weight) for _, weight in model.named_parameters(remove_duplicate=False))
    for name, module in _linear(model).items():
        if name.rpartition(".")[2] in table.targets and owners[id(module.weight)] > 1:
            raise InvalidInputError(
                f"trainer.adapter.targets: the weight of {name!r} is another layer's too (tied, as lm_head often is to "
                "the embedding), so it cannot have an adapter; leave it out"
            )


def _linear(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers of a model's text part, and its head; engines have no adapters of an image encoder."""
    own = {id(module) for module in [*text_part(model).modules(), model.get_output_embeddings()]}
    modules = model.named_modules()
    return {name: module for name, module in modules if isinstance(module, nn.Linear) and id(module) in own}


@contextlib.contextmanager
def unadapted(model: nn.Module) -> Iterator[None]:
    """Within, the model computes as if it had no adapters: the base that they change."""
    layers = [module for module in model.modules() if isinstance(module, AdaptedLinear)]
    for layer in layers:
        layer.is_adapted = False
    try:
        yield
    finally:
        for layer in layers:
            layer.is_adapted = True


class UnadaptedLogprobs(nn.Module):
    """`token_logprobs` of the base that a model's adapters change: a frozen policy without a copy of the weights."""

    def __init__(self, model: PreTrainedModel, temperature: float = 1.0) -> None:
        super().__init__()
        self._model = [model]  # not as a submodule: its tensors are the policy's
        self._temperature = temperature

    def forward(self, row: PackedRow) -> Tensor:
        """`token_logprobs` of the row, shape (S,)."""
        (model,) = self._model
        with unadapted(model):
            return token_logprobs(model, row, self._temperature)


def factors(model: nn.Module) -> dict[str, Tensor]:
    """Returns what is trained, by PEFT's names; the tensors are the model's own."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, AdaptedLinear):
            found[PREFIX + name + A_SUFFIX] = module.lora_A.detach()
            found[PREFIX + name + B_SUFFIX] = module.lora_B.detach()
    return found


@torch.no_grad()
def set_factors(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copies values into the adapter's factors, by name."""
    for name, own in factors(model).items():
        own.copy_(values[name])


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the same policy without adapters."""
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith((".lora_A", ".lora_B"))}
    adapted = {name: module for name, module in model.named_modules() if isinstance(module, AdaptedLinear)}
    return state | {f"{name}.weight": module.merged() for name, module in adapted.items()}
