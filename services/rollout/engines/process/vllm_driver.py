"""vLLM, steered from its own process: one engine core, stepped by us, so that the boundary of a version is exact.

Tokens are drawn by `sampling.draw`, which the torch engine uses too: vLLM's interface for logits processors lets one
decide a token before vLLM's own sampler sees it. That gives each sample its own random stream, both kinds of
log-probability, and on a CPU less work than vLLM's sampler makes (it draws a random number for every token of the
vocabulary). Needs vLLM's V1 model runner. Of several processes that share a model (`tensor_parallel`) each has all
logits and draws the same tokens; each maps the file of a new version by itself.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from services.rollout.engines import sampling
from services.rollout.engines.process import wire
from services.rollout.engines.process.child import Request, Token
from services.rollout.engines.process.weight_file import read_tensors

# In this process, and not in further ones; the V2 runner has no logits processors of one's own. vLLM pins its threads
# to cores, where other services would compete with them.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

from vllm import EngineArgs, SamplingParams, TokensPrompt
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")  # of a model that sees


@dataclass(frozen=True)
class _Row:
    """A request in vLLM's batch; all that is drawn by came with it."""

    ref: int
    stream: int
    temperature: float
    top_p: float
    top_k: int
    num_tokens: int  # before the first that vLLM appends
    response: list[int]  # grows as vLLM appends to it


def _row(params: SamplingParams, _: object, response: list[int]) -> _Row:
    return _Row(**params.extra_args, response=response)


class Draw(LogitsProcessor):  # type: ignore[misc,unused-ignore]
    """Draws each row's token and leaves vLLM no other choice; keeps what the token's log-probabilities were."""

    # vLLM makes the one instance of a process itself, so that what the driver takes from it belongs to the class.
    drawn: ClassVar[dict[int, tuple[float, float]]] = {}  # by the last step: each request's log-probabilities

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, _Row] = {}

    def is_argmax_invariant(self) -> bool:
        """Says that vLLM may not leave this out for greedy requests."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follows requests as vLLM adds, moves and removes them in its batch."""
        process_dict_updates(self._rows, batch_update, _row)

    def apply(self, logits_BV: Tensor) -> Tensor:
        """Draws a token for each row; returns logits that leave that token only."""
        rows = [self._rows[index] for index in range(len(logits_BV))]
        streams = np.array([row.stream for row in rows], dtype=np.uint64)
        positions = np.array([row.num_tokens + len(row.response) - 1 for row in rows], dtype=np.int64)
        tokens_B, logprobs_B, full_logprobs_B = sampling.draw(
            logits_BV,
            torch.tensor([row.temperature for row in rows], dtype=torch.float32, device=logits_BV.device),
            torch.tensor([row.top_p for row in rows], dtype=torch.float32, device=logits_BV.device),
            torch.tensor([row.top_k for row in rows], dtype=torch.int64, device=logits_BV.device),
            torch.from_numpy(sampling.uniforms(streams, positions)).to(logits_BV.device),
        )
        pairs = zip(logprobs_B.tolist(), full_logprobs_B.tolist(), strict=True)
        Draw.drawn = {row.ref: pair for row, pair in zip(rows, pairs, strict=True)}
        return logits_BV.scatter_(1, tokens_B[:, None], torch.inf)


class VllmDriver:
    """See `services.rollout.engines.process.child.Driver`."""

    def __init__(self, start: wire.StartEngine) -> None:
        self._end_tokens = start.end_tokens
        self._keep_context = start.options["context_at_swap"] == "keep"
        self._num_loads = 0
        sees = any((Path(start.folder) / name).exists() for name in PROCESSOR_FILES)
        self._engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=start.folder,
                dtype=start.dtype,
                tensor_parallel_size=start.options["tensor_parallel"],
                load_format="dummy",  # the weights come by `load`
                skip_tokenizer_init=not sees,  # a processor of images writes text
                generation_config="vllm",
                max_num_seqs=start.max_running,
                kv_cache_memory_bytes=start.kv_cache_bytes,
                enable_prefix_caching=True,
                # Compiling takes minutes on a CPU, and gains little there.
                enforce_eager=current_platform.is_cpu(),
                async_scheduling=False,  # a step is over when it returns: weights change between two
                logits_processors=[Draw],
                disable_log_stats=True,
            )
        )

    @property
    def max_context(self) -> int:
        """Tokens that the model's configuration allows."""
        return int(self._engine.vllm_config.model_config.max_model_len)

    @property
    def has_work(self) -> bool:
        """Tests whether requests are unfinished."""
        return self._engine.has_unfinished_requests()

    def add(self, request: Request) -> None:
        """Queues a request."""
        settings = SamplingParams(
            temperature=0,  # of what `Draw` leaves
            max_tokens=request.max_new_tokens,
            stop_token_ids=self._end_tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args={
                "ref": request.ref,
                "stream": request.stream,
                "temperature": request.temperature,
                "top_p": request.top_p,
                "top_k": request.top_k,
                "num_tokens": len(request.tokens),
            },
        )
        # The salt keeps prefixes apart that were read by different versions.
        prompt = TokensPrompt(prompt_token_ids=_with_placeholders(request), cache_salt=str(self._num_loads))
        if request.images:
            prompt["multi_modal_data"] = {"image": [_picture(shown.data) for shown in request.images]}
        self._engine.add_request(str(request.ref), prompt, settings)

    def abort(self, refs: Sequence[int]) -> None:
        """Ends requests where they are."""
        self._engine.abort_request([str(ref) for ref in refs])

    def load(self, version: wire.Load) -> list[Token]:
        """Reloads the weights; running requests are preempted and read again, unless contexts are kept."""
        self._engine.collective_rpc(_reload, args=(version,))
        self._num_loads += 1
        self._engine.reset_encoder_cache()
        if not self._keep_context:
            self._engine.reset_prefix_cache(reset_running_requests=True)
        return []

    def step(self) -> list[Token]:
        """Draws a token of each running request."""
        return list(self._drawn())

    def _drawn(self) -> Iterator[Token]:
        fresh = [
            (int(output.request_id), token)
            for output in self._engine.step()
            for token in output.outputs[0].token_ids  # one, or none at an abort
        ]
        if fresh:
            logprobs, *_ = self._engine.collective_rpc(_last_drawn)
            yield from (Token(ref, token, *logprobs[ref]) for ref, token in fresh)


def _with_placeholders(request: Request) -> list[int]:
    """A request's tokens with one placeholder for each image, in whose place vLLM puts that image's ids again."""
    tokens, begin = list[int](), 0
    for shown in request.images:
        tokens += [*request.tokens[begin : shown.start], request.tokens[shown.first_slot]]
        begin = shown.end
    return tokens + request.tokens[begin:]


def _picture(data: bytes) -> Any:
    """An image as vLLM takes it; its bytes were checked when the prompt was read."""
    with Image.open(io.BytesIO(data)) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def _last_drawn(_: Any) -> dict[int, tuple[float, float]]:
    """In vLLM's worker: the log-probabilities of the last step's tokens, of each request."""
    return Draw.drawn


def _reload(worker: Any, version: wire.Load) -> None:
    """In vLLM's worker: new weights in the old storage. ValueError if some are missing or of another shape."""
    model, tensors = worker.get_model(), read_tensors(version)
    wanted = {name for name, _ in model.named_parameters()}
    with torch.device(worker.device):
        initialize_layerwise_reload(model)
        loaded = model.load_weights(tensors.items())
        finalize_layerwise_reload(model, worker.model_runner.model_config)
    if missing := sorted(wanted - loaded):
        raise ValueError(f"the version lacks {len(missing)} of the model's tensors, the first is {missing[0]}")
    # The layerwise reload knows nothing of tied weights: a packed head would go on with the old version's.
    head = getattr(getattr(model, "language_model", model), "lm_head", None)
    if head is not None and hasattr(head, "quant_method"):
        head.quant_method.process_weights_after_loading(head)
