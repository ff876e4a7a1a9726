"""Fewer and larger launches of the same model, which is what a card wants.

Queries, keys and values of a layer, and the two halves of a gated feed-forward part, are linear layers of one input.
Their weights are laid one below the other in one tensor, and each layer's own weight becomes a view of its part: names
and shapes of the model's tensors stay, so that versions are staged and copied in as before. The first layer that is
called computes the product; the others take their part of it.

A norm of the usual kind is one kernel in place of six operations. Which modules are of that kind is tried out: the
module's own result decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from services.rollout.engines.embedded.paged import kernels

TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # called in this order


@torch.no_grad()
def fuse_projections(model: nn.Module) -> int:
    """Fuses what can be; from now on weights must be changed in place. Returns how many products became one."""
    found = [group for module in model.modules() for group in _groups(module)]
    for group in found:
        _Product(group)
    return len(found)


@torch.no_grad()
def fuse_norms(model: nn.Module, rms_norm: Callable[[Tensor, Tensor, float], Tensor]) -> int:
    """Has norms that compute what `rms_norm` does compute it by that. Returns how many."""
    found = [module for module in model.modules() if _is_usual_norm(module)]
    for module in found:
        weight, epsilon = cast(Tensor, module.weight), _epsilon(module)
        module.forward = partial(_norm, rms_norm, weight, epsilon)
    return len(found)


def _norm(rms_norm: Callable[[Tensor, Tensor, float], Tensor], weight: Tensor, epsilon: float, given: Tensor) -> Tensor:
    return rms_norm(given, weight, epsilon)


def _is_usual_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, Tensor) or weight.dim() != 1:
        return False
    numbers = torch.linspace(-2, 2, 3 * len(weight), device=weight.device, dtype=weight.dtype).view(3, -1)
    own = module(numbers)
    return bool(torch.equal(own, kernels.rms_norm(numbers, weight, _epsilon(module))))


def _epsilon(module: nn.Module) -> float:
    return float(getattr(module, "variance_epsilon", getattr(module, "eps", 0.0)))


def _groups(module: nn.Module) -> Iterator[list[nn.Linear]]:
    for names in TOGETHER:
        layers = [getattr(module, name, None) for name in names]
        linear = [layer for layer in layers if type(layer) is nn.Linear]
        if len(linear) == len(names) and _are_alike(linear):
            yield linear


def _are_alike(layers: Sequence[nn.Linear]) -> bool:
    first = layers[0]
    return all(
        layer.in_features == first.in_features
        and (layer.bias is None) == (first.bias is None)
        and layer.weight.dtype == first.weight.dtype
        for layer in layers
    )


class _Product:
    """One product in place of several layers."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self._sizes = [layer.out_features for layer in layers]
        self._weight = _joined([layer.weight for layer in layers])
        self._bias = _joined([layer.bias for layer in layers]) if layers[0].bias is not None else None
        self._input: Tensor | None = None  # of the product whose parts are being taken
        self._parts: Sequence[Tensor] = ()
        for number, layer in enumerate(layers):
            layer.forward = partial(self._part, number)  # type: ignore[method-assign]

    def _part(self, number: int, given: Tensor) -> Tensor:
        if self._input is not given:
            self._input, self._parts = given, F.linear(given, self._weight, self._bias).split(self._sizes, -1)
        part = self._parts[number]
        if number == len(self._sizes) - 1:  # the last one: nothing of it is kept
            self._input, self._parts = None, ()
        return part


def _joined(parts: Sequence[Tensor]) -> Tensor:
    whole = torch.cat([part.data for part in parts]).contiguous()
    for part, view in zip(parts, whole.split([len(part) for part in parts]), strict=True):
        part.data = view
    return whole
