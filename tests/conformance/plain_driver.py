"""The least that an engine's process can drive: a Hugging Face model, one request after the other.

With it the suite tests `ProcessEngine`, the wire and a process's death where neither vLLM nor SGLang is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from perilune.recipe import EngineBase
from services.rollout.engines import EngineRow, sampling
from services.rollout.engines.process import wire
from services.rollout.engines.process.child import Request, Token
from services.rollout.engines.process.weight_file import read_tensors


@dataclass
class _Decoding:
    request: Request
    tokens: list[int]
    cache: DynamicCache = field(default_factory=DynamicCache)


class PlainEngineTable(EngineBase):
    """Its keys."""

    type: Literal["plain"] = "plain"
    context_at_swap: Literal["reread", "keep"] = "reread"


class PlainDriver:
    """See `services.rollout.engines.process.child.Driver`."""

    def __init__(self, start: wire.StartEngine) -> None:
        torch.set_num_threads(1)
        config = AutoConfig.from_pretrained(start.folder)
        self._start = start
        self._model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, start.dtype)).eval()
        self._decoding: dict[int, _Decoding] = {}

    @property
    def max_context(self) -> int:
        return int(self._model.config.max_position_embeddings)

    @property
    def has_work(self) -> bool:
        return bool(self._decoding)

    def add(self, request: Request) -> None:
        self._decoding[request.ref] = _Decoding(request, list(request.tokens))

    def abort(self, refs: Sequence[int]) -> None:
        for ref in refs:
            self._decoding.pop(ref, None)

    def load(self, version: wire.Load) -> list[Token]:
        self._model.load_state_dict(read_tensors(version), strict=False)  # a tied head comes under one name
        if self._start.options["context_at_swap"] == "reread":
            for each in self._decoding.values():
                each.cache = DynamicCache()
        return []

    @torch.inference_mode()
    def step(self) -> list[Token]:
        return [self._next(each) for each in list(self._decoding.values())[: self._start.max_running]]

    def _next(self, decoding: _Decoding) -> Token:
        request, position = decoding.request, len(decoding.tokens) - 1
        unread = torch.tensor([decoding.tokens[decoding.cache.get_seq_length() :]])
        logits_BV = self._model(unread, past_key_values=decoding.cache).logits[:, -1].float()
        uniform = sampling.uniforms(np.array([request.stream], np.uint64), np.array([position]))
        token, logprob, full_logprob = (
            drawn.item()
            for drawn in sampling.draw(
                logits_BV,
                torch.tensor([request.temperature]),
                torch.tensor([request.top_p]),
                torch.tensor([request.top_k]),
                torch.from_numpy(uniform),
            )
        )
        decoding.tokens.append(int(token))
        num_new = len(decoding.tokens) - len(request.tokens)
        if token in self._start.end_tokens or num_new == request.max_new_tokens:
            del self._decoding[request.ref]
        return Token(request.ref, int(token), logprob, full_logprob)


PLAIN = EngineRow(f"{__name__}:{PlainDriver.__name__}", is_driver=True)
