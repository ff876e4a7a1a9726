"""Merging: one model out of several of the same shape, tensor by tensor (k1.5 §2.4 takes the plain average).

average    the mean
weighted   the mean with weights, which are divided by their sum
slerp      between two, along the arc of the sphere that a tensor lies on (Shoemake 1985), at a share t of the way
ties       changes from a base: the largest of each, by sign the majority's, their mean (arXiv:2306.01708)

Computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Keys of a configuration that do not say what a tensor means: models that differ in them alone can be merged.
FREE_KEYS = frozenset({
    "_name_or_path", "architectures", "attention_dropout", "bos_token_id", "chunk_size_feed_forward", "dtype",
    "eos_token_id", "id2label", "initializer_range", "label2id", "max_position_embeddings", "output_attentions",
    "output_hidden_states", "pad_token_id", "pretraining_tp", "problem_type", "return_dict", "torch_dtype",
    "transformers_version", "use_cache",
})  # fmt: skip
NEARLY_PARALLEL = 0.9995  # a cosine above which an arc is as good as a line
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class MergeSettings:
    """Describes what the methods take; each looks at its own."""

    weights: tuple[float, ...] = ()  # of each model; alike if not given
    t: float = 0.5  # of slerp: 0 is the first model, 1 the second
    density: float = 0.2  # of ties: the share of each tensor's changes that is kept


def average(tensors: Sequence[Tensor], settings: MergeSettings, base: Tensor | None = None) -> Tensor:
    """The mean of tensors of one shape, with the settings' weights."""
    weights = settings.weights or (1.0,) * len(tensors)
    total = sum(weight * tensor.float() for weight, tensor in zip(weights, tensors, strict=True))
    assert isinstance(total, Tensor)  # there is a tensor
    return total / sum(weights)


def slerp(tensors: Sequence[Tensor], settings: MergeSettings, base: Tensor | None = None) -> Tensor:
    """The point at a share t of the arc between two tensors; of the line, where they point the same way or nowhere."""
    first, second = (tensor.float() for tensor in tensors)
    norms = first.norm() * second.norm()
    cosine = ((first * second).sum() / norms).clamp(-1, 1) if norms > 0 else torch.ones(())
    if cosine.abs() > NEARLY_PARALLEL:
        return torch.lerp(first, second, settings.t)
    angle = torch.arccos(cosine)
    left, right = torch.sin((1 - settings.t) * angle), torch.sin(settings.t * angle)
    return (left * first + right * second) / torch.sin(angle)


def ties(tensors: Sequence[Tensor], settings: MergeSettings, base: Tensor | None = None) -> Tensor:
    """The base with the mean of those changes that agree with the weighted majority's sign; each trimmed before."""
    assert base is not None  # the caller's check
    weights = settings.weights or (1.0,) * len(tensors)
    changes = torch.stack([_largest(tensor.float() - base.float(), settings.density) for tensor in tensors])
    weights_N = torch.tensor(weights).view(-1, *([1] * base.ndim))
    weighted = weights_N * changes
    agree = (changes.sign() == weighted.sum(0).sign()) & (changes != 0)
    counted = (weights_N * agree).sum(0)
    return base.float() + torch.where(counted > 0, (weighted * agree).sum(0) / counted.clamp_min(1e-12), 0.0)


def _largest(change: Tensor, density: float) -> Tensor:
    """The elements of largest size, so large a share of them, and zeros in place of the others."""
    num_kept = max(1, int(density * change.numel())) if change.numel() else 0
    kept = change.flatten().abs().topk(num_kept).indices
    out = torch.zeros_like(change.flatten())
    out[kept] = change.flatten()[kept]
    return out.view_as(change)


METHODS: dict[str, Callable[[Sequence[Tensor], MergeSettings, Tensor | None], Tensor]] = {
    "average": average,
    "weighted": average,
    "slerp": slerp,
    "ties": ties,
}


def merged(
    method: str, states: Sequence[State], settings: MergeSettings, base: State | None = None
) -> dict[str, Tensor]:
    """The merged state of models whose tensors were found alike (`first_difference`); counters are the first's."""
    merge = METHODS[method]
    return {
        name: merge([state[name] for state in states], settings, base[name] if base else None).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }


def config_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Why two models whose tensors are alike cannot be merged, by their configurations, in words; "" if they can.

    Tensors of one shape may be eight heads or four, or read positions in another way.
    """
    for key in sorted((first.keys() | second.keys()) - FREE_KEYS):
        ours, theirs = first.get(key), second.get(key)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            if inner := config_difference(ours, theirs):
                return inner
        elif ours != theirs:
            return f"its configuration has {key} = {theirs!r}, and the first's {ours!r}"
    return ""


def first_difference(first: State, second: State) -> str:
    """Why two models cannot be merged, in words; "" if they can."""
    for name in sorted(first.keys() | second.keys()):
        if name not in second:
            return f"it has no tensor {name}"
        if name not in first:
            return f"it has the tensor {name}, which the first has not"
        if first[name].shape != second[name].shape:
            shapes = tuple(second[name].shape), tuple(first[name].shape)
            return f"its tensor {name} has the shape {shapes[0]}, and the first's {shapes[1]}"
    return ""
