"""A policy in memory: a Hugging Face causal LM from the small files and the tensors of the weight stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perilune.errors import InvalidInputError, WeightStreamError
from perilune.models.attention import use_attention
from perilune.models.files import blank_model
from perilune.models.tensors import compute_dtype, torch_tensor
from perilune.weights import RawTensor
from services.rollout.engines.embedded.passes import ATTENTION, attend


def build_model(model_files: Mapping[str, bytes], tensors: Sequence[RawTensor], device: str = "cpu") -> Any:
    """The model that `config.json` describes, in the tensors' own dtype, on the device, with the tensors loaded.

    Raises:
        InvalidInputError: the model does not use transformers' attention interface.
        WeightStreamError: the tensors are not this model's.
    """
    model = blank_model(model_files, compute_dtype(tensors))
    use_attention(model, ATTENTION, attend, "use another engine, or a model of an architecture that takes one")
    if getattr(model.config.get_text_config(), "max_position_embeddings", None) is None:
        raise InvalidInputError(
            f"{type(model).__name__} does not say how long its context is; set max_position_embeddings in config.json"
        )
    model.to(device)  # type: ignore[arg-type]  # transformers' annotation leaves out what torch takes
    model.requires_grad_(False)
    swap_tensors(model, stage_tensors(model, tensors))
    if device == "cpu":
        _lay_out_for_decoding(model)
    return model


@torch.no_grad()
def stage_tensors(model: nn.Module, tensors: Iterable[RawTensor]) -> dict[str, Tensor]:
    """A version beside the one that the model has, laid out like it; the model may be computing meanwhile.

    Tied weights may come under any of their names. WeightStreamError if a name or shape is not the model's, or if one
    of its weights is missing.
    """
    state = model.state_dict()
    given = {}
    for raw in tensors:
        if raw.name not in state or tuple(state[raw.name].shape) != raw.shape:
            own = tuple(state[raw.name].shape) if raw.name in state else "none of that name"
            raise WeightStreamError(f"the tensor {raw.name} of shape {raw.shape} is not this model's, which has {own}")
        given[raw.name] = torch_tensor(raw)
    places = {state[name].data_ptr() for name in given}
    missing = [name for name, own in state.items() if own.data_ptr() not in places]
    if missing:
        raise WeightStreamError(f"the version lacks {len(missing)} of the model's tensors, the first is {missing[0]}")
    return {name: torch.empty_like(state[name]).copy_(tensor) for name, tensor in given.items()}


@torch.no_grad()
def swap_tensors(model: nn.Module, staged: Mapping[str, Tensor], *, in_place: bool = False) -> None:
    """Has the model compute with what was staged from now on.

    Args:
        model: of these tensors.
        staged: laid out like the model's.
        in_place: copies the values, where other things than the model know its tensors; else nothing is copied.
    """
    own = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    if in_place:
        torch._foreach_copy_([own[name].data for name in staged], list(staged.values()))
        return
    for name, tensor in staged.items():
        own[name].data = tensor


@torch.no_grad()
def round_to_int8(model: nn.Module) -> None:
    """Rounds linear weights to int8 with a scale for each output (symmetric, by its largest weight), in place.

    The weights keep their dtype: what an int8 engine would compute with, not its speed. A head that is tied to the
    embedding is rounded with it.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            scale = (module.weight.abs().amax(1, keepdim=True) / 127).clamp_min_(torch.finfo(module.weight.dtype).tiny)
            module.weight.copy_((module.weight / scale).round_().mul_(scale))


def _lay_out_for_decoding(model: nn.Module) -> None:
    """Stores linear weights column by column: the products of a decode step, few rows times a weight, run faster so.

    The embedding is read by rows, so a head that is tied to it stays as it is.
    """
    embeddings = {module.weight.data_ptr() for module in model.modules() if isinstance(module, nn.Embedding)}
    head = model.get_output_embeddings()  # type: ignore[operator]
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head and module.weight.data_ptr() not in embeddings:
            module.weight.data = module.weight.data.t().contiguous().t()
