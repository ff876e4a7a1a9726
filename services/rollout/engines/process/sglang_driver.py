"""SGLang, steered from its own process.

Tokens are drawn by `sampling.draw`, as in the other engines, through SGLang's interface for custom logit processors;
the log-probabilities come back as SGLang's `customized_info`. SGLang has processes of its own and streams what they
draw, so a version's boundary is made by emptying it: running requests are aborted, which hands over their last tokens,
and begin again from there under the new version.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig

from services.rollout.engines import sampling
from services.rollout.engines.process import wire
from services.rollout.engines.process.child import Request, Token
from services.rollout.engines.process.weight_file import read_tensors

os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "0" if torch.cuda.is_available() else "1")
os.environ.setdefault("SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN", "1")  # by `RESERVED_TOKENS`, which are never used

from sglang.srt.entrypoints.engine import Engine
from sglang.srt.sampling.custom_logit_processor import CustomLogitProcessor

LOGPROBS = "perilune_logprobs"  # the key of what `Draw` adds to each token
RESERVED_TOKENS = 6  # SGLang refuses prompts that end within so many of the context, and a continued sample is a prompt
FORBIDDEN = -1e9  # a finite logit: SGLang takes infinite ones for errors
ON_CPU: dict[str, Any] = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "grammar_backend": "none",
}


class Draw(CustomLogitProcessor):  # type: ignore[misc,unused-ignore]
    """In SGLang's scheduler: draws each row's token and leaves the sampler no other choice."""

    def __call__(self, logits: Tensor, custom_param_list: Any = None) -> Tensor:
        """Returns logits that leave each row the token that was drawn."""
        wanted = custom_param_list
        positions = [len(each["__req__"].origin_input_ids) + len(each["__req__"].output_ids) - 1 for each in wanted]
        streams = np.array([int(each["stream"]) for each in wanted], dtype=np.uint64)
        tokens_B, logprobs_B, full_logprobs_B = sampling.draw(
            logits.float(),
            torch.tensor([each["temperature"] for each in wanted], dtype=torch.float32, device=logits.device),
            torch.tensor([each["top_p"] for each in wanted], dtype=torch.float32, device=logits.device),
            torch.tensor([each["top_k"] for each in wanted], dtype=torch.int64, device=logits.device),
            torch.from_numpy(sampling.uniforms(streams, np.array(positions, dtype=np.int64))).to(logits.device),
        )
        for each, *pair in zip(wanted, logprobs_B.tolist(), full_logprobs_B.tolist(), strict=True):
            request = each["__req__"]
            request.customized_info = request.customized_info or {}
            request.customized_info.setdefault(LOGPROBS, []).append(pair)
        return torch.full_like(logits, FORBIDDEN).scatter_(1, tokens_B[:, None], 0.0)


class SglangDriver:
    """See `services.rollout.engines.process.child.Driver`."""

    def __init__(self, start: wire.StartEngine) -> None:
        self._end_tokens = start.end_tokens
        config = AutoConfig.from_pretrained(start.folder).get_text_config()
        self._model_context = int(config.max_position_embeddings)
        self._engine = Engine(
            model_path=start.folder,
            dtype=start.dtype,
            context_length=self._model_context + RESERVED_TOKENS,
            load_format="dummy",  # the weights come by `load`
            skip_tokenizer_init=True,
            enable_custom_logit_processor=True,
            disable_overlap_schedule=True,  # a token's position is known when it is drawn
            disable_cuda_graph=not torch.cuda.is_available(),
            max_running_requests=start.max_running,
            log_level="error",
            **({} if torch.cuda.is_available() else ON_CPU | {"max_total_tokens": _cached_tokens(start, config)}),
        )
        self._loop: asyncio.AbstractEventLoop = self._engine.loop
        self._processor = Draw.to_str()
        self._following: dict[int, asyncio.Task[Request | None]] = {}
        self._rids: dict[int, str] = {}  # of requests in SGLang: each of its own, also where one begins again
        self._num_requests = 0
        self._arrived: list[Token] = []
        self._news = asyncio.Event()

    @property
    def max_context(self) -> int:
        """The model's, or less where the cache holds less."""
        return min(self._model_context, int(self._engine.tokenizer_manager.max_req_input_len))

    @property
    def has_work(self) -> bool:
        """Tests whether requests are unfinished."""
        return bool(self._following)

    def add(self, request: Request) -> None:
        """Queues a request."""
        self._following[request.ref] = self._loop.create_task(self._follow(request))

    def abort(self, refs: Sequence[int]) -> None:
        """Ends requests where they are."""
        for ref in refs:
            if ref in self._following:
                self._engine.tokenizer_manager.abort_request(rid=self._rids[ref])

    def load(self, version: wire.Load) -> list[Token]:
        """Aborts what runs, puts the weights in place, and begins each request again where it was."""
        unfinished = self._loop.run_until_complete(self._empty())
        self._engine.begin_weight_update()
        succeeded, problem, *_ = self._engine.update_weights_from_tensor(
            list(read_tensors(version).items()), flush_cache=True
        )
        if not succeeded:
            raise ValueError(problem)
        self._engine.end_weight_update()
        for request in unfinished:
            self.add(request)
        return self._take()

    def step(self) -> list[Token]:
        """Waits for tokens, and returns those that have come."""
        self._loop.run_until_complete(self._news.wait())
        return self._take()

    def _take(self) -> list[Token]:
        """The tokens that have arrived. An error of a request ends this process: the worker starts another."""
        self._news.clear()
        for ref, following in list(self._following.items()):
            if following.done():
                del self._following[ref]
                following.result()
        arrived, self._arrived = self._arrived, []
        return arrived

    async def _follow(self, request: Request) -> Request | None:
        """Has one request drawn. Returns what is left of it if it was aborted."""
        self._num_requests += 1
        self._rids[request.ref] = f"{request.ref}-{self._num_requests}"
        stream = await self._engine.async_generate(
            input_ids=request.tokens,
            sampling_params=self._settings(request),
            custom_logit_processor=self._processor,
            rid=self._rids[request.ref],
            stream=True,
        )
        tokens: list[int] = []
        reason: Mapping[str, Any] | None = None
        async for output in stream:
            fresh = output["output_ids"][len(tokens) :]
            pairs = output["meta_info"].get(LOGPROBS, [])[len(tokens) : len(tokens) + len(fresh)]
            tokens += fresh
            self._arrived += [Token(request.ref, token, *pair) for token, pair in zip(fresh, pairs, strict=True)]
            reason = output["meta_info"]["finish_reason"]
            self._news.set()
        self._news.set()
        if reason is None or reason["type"] != "abort":
            return None
        left = request.max_new_tokens - len(tokens)
        return replace(request, tokens=request.tokens + tokens, max_new_tokens=left) if left else None

    def _settings(self, request: Request) -> dict[str, Any]:
        wanted = {
            "stream": str(request.stream),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
        }
        return {
            "temperature": 0.0,  # of what `Draw` leaves
            "max_new_tokens": request.max_new_tokens,
            "stop_token_ids": self._end_tokens,
            "ignore_eos": not self._end_tokens,
            "custom_params": wanted,
        }

    async def _empty(self) -> list[Request]:
        """Aborts everything; when it returns, every token that was drawn has arrived. Returns what is to go on."""
        following, self._following = list(self._following.values()), {}
        if following:
            self._engine.tokenizer_manager.abort_request(abort_all=True)
        left = await asyncio.gather(*following)
        return [request for request in left if request is not None]


def _cached_tokens(start: wire.StartEngine, config: Any) -> int:
    """Returns how many tokens' keys and values the memory holds."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    itemsize = getattr(torch, start.dtype).itemsize
    return start.kv_cache_bytes // int(2 * config.num_hidden_layers * heads * size * itemsize)
