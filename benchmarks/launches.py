"""Says how many operations a decode step of the torch engine launches, in slots and in pages: they bound it on a card.

Counted on a CPU, with a model of small matrices, so it needs no card and its figures do not depend on the machine.
Views and empty tensors launch nothing. A kernel of ours counts as one; on a card a second one puts its splits of long
contexts together. Steps in pages are recorded there (CUDA graphs): the host then launches all of this as one.

    python -m benchmarks.launches [--rows 256] [--layers 28] [--json FILE]
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.report import Figure, report
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.models.tensors import raw_tensor
from services.rollout.engines.base import SampleRequest, Sampling
from services.rollout.engines.embedded import layouts
from services.rollout.engines.embedded.decoder import Decoder, Row
from services.rollout.engines.embedded.model import build_model
from services.rollout.engines.embedded.paged.kernels import PLAIN, Kernels

WAITING = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal")  # the host waits for their values
EMPTY = ("empty", "new_empty", "empty_like", "empty_strided", "detach_", "detach", "alias")


class Launches(TorchDispatchMode):
    """Counts what torch is asked to compute, by the operation's name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._is_paused = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = function.name().removeprefix("aten::").split(".")[0]
        if not self._is_paused and name not in EMPTY and not (function.is_view and _is_view(result, args)):
            self.counts[name] += 1
        return result

    @property
    def num_waits(self) -> int:
        """Operations whose values the host waits for."""
        return sum(self.counts[name] for name in WAITING)

    def as_one(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted as one launch."""

        def counted(*args: Any) -> Any:
            self._is_paused = True
            try:
                return kernel(*args)
            finally:
                self._is_paused = False
                self.counts["kernel"] += 1

        return counted


def _is_view(result: Any, args: Any) -> bool:
    """Tests whether nothing was computed: reshaping or casting may copy."""
    if not isinstance(result, Tensor) or not isinstance(args[0], Tensor):
        return True
    return result.untyped_storage().data_ptr() == args[0].untyped_storage().data_ptr()


class NoEndings:
    """Samples that end by their limits alone."""

    tokens: frozenset[int] = frozenset()

    def texts(self, stop: tuple[str, ...]) -> None:
        """There are none."""


def small_qwen(num_layers: int) -> Any:
    """A model of Qwen 2's layers in bf16, with small matrices, as an engine has it."""
    config = Qwen2Config(
        vocab_size=2048,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=num_layers,
        num_attention_heads=12,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    tensors = [raw_tensor(name, tensor) for name, tensor in model.state_dict().items()]
    return build_model({"config.json": config.to_json_string().encode()}, tensors)


@torch.inference_mode()
def count_step(decoder: Decoder, num_rows: int, launches: Launches) -> Counter[str]:
    """Returns what one step of so many running samples launches."""
    sampling, policy = Sampling(), PolicyVersion()
    decoder.waiting += [
        Row(SampleRequest(str(i), np.array([5, 6, 7 + i]), 100, sampling, index=i), NoEndings(), 256)  # type: ignore[arg-type]
        for i in range(num_rows)
    ]
    for _ in range(3):  # the first reads prompts
        drawn = decoder.step()
        for row, token in zip(drawn.rows, drawn.tokens, strict=True):
            row.add(policy, token, 0.0, 0.0)
    launches.counts.clear()
    with launches:
        decoder.step()
    return launches.counts


def steps(num_layers: int, num_rows: int) -> tuple[Launches, Launches]:
    """The launches of a step in slots, and in pages."""
    in_slots, in_pages = Launches(), Launches()
    count_step(layouts.in_slots(small_qwen(num_layers), num_rows, None), num_rows, in_slots)
    counted = Kernels(*(in_pages.as_one(each) if callable(each) else each for each in PLAIN))
    count_step(layouts.in_pages(small_qwen(num_layers), num_rows, 1 << 26, counted), num_rows, in_pages)
    return in_slots, in_pages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256, help="samples that run (default: 256)")
    parser.add_argument("--layers", type=int, default=28, help="of the model (default: 28)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    in_slots, in_pages = steps(options.layers, options.rows)
    for name, launches in (("in slots", in_slots), ("in pages", in_pages)):
        print(f"{name}: {', '.join(f'{name} {count}' for name, count in launches.counts.most_common())}")
    figures = {
        "launches_of_a_step": Figure.against(in_slots.counts.total(), in_pages.counts.total(), "launches"),
        "waits_in_a_step": Figure(in_pages.num_waits, "operations", in_slots.num_waits),
    }
    report("A decode step of the torch engine, in pages against slots", figures, options.json)


if __name__ == "__main__":
    main()
