"""A tiny Llama and a word-level tokenizer, as the weight stream delivers them; and a way to call an engine and wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.recipe import EngineBase, TorchEngineTable
from perilune.weights import RawTensor, manifest_of
from services.rollout.engines import make_engine
from services.rollout.engines.base import Deliver, Engine, EngineSpec, Generated, SampleRequest, Sampling

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{i}" for i in range(60))]
EOS = WORDS.index("<eos>")
PATIENCE_S = 300.0  # of whoever waits for an engine: a process of vLLM starts slowly on a busy machine
TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ ' ' + message['content'] }}{% endfor %}"


def tiny_tokenizer(chat_template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        chat_template=chat_template,
    )


def tiny_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """Random weights; `changes` are values of its configuration."""
    torch.manual_seed(seed)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    }
    config = LlamaConfig(vocab_size=len(WORDS), initializer_range=0.3, eos_token_id=EOS, **(shape | changes))
    return LlamaForCausalLM(config).eval()


def raw_tensors(model: PreTrainedModel) -> list[RawTensor]:
    """As the trainer sends them: tied weights once."""
    raw = {}
    for name, tensor in model.state_dict().items():
        octets = bytearray(tensor.contiguous().view(torch.uint8).numpy().tobytes())
        raw.setdefault(
            tensor.data_ptr(), RawTensor(name, trajectory.DTYPE_FLOAT32, tuple(tensor.shape), memoryview(octets))
        )
    return list(raw.values())


def model_files(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None = None) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        (tokenizer or tiny_tokenizer()).save_pretrained(folder)
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def spec_of(
    model: PreTrainedModel,
    deliver: Deliver,
    max_running: int = 8,
    kv_cache_bytes: int = 1 << 28,
    options: EngineBase | None = None,
    files: Mapping[str, bytes] | None = None,
) -> EngineSpec:
    """An engine of this model, as version 0; `files`: its small ones, if it is not the tiny Llama's tokenizer."""
    tensors = raw_tensors(model)
    return EngineSpec(
        model_files=files or model_files(model),
        policy=manifest_of(0, tensors).version,
        tensors=tensors,
        deliver=deliver,
        max_running=max_running,
        kv_cache_bytes=kv_cache_bytes,
        options=options or TorchEngineTable(),
    )


class Caller:
    """An engine, and what it delivered."""

    def __init__(
        self,
        model: PreTrainedModel,
        max_running: int = 8,
        kv_cache_bytes: int = 1 << 28,
        options: EngineBase | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.delivered: list[Generated] = []
        self._arrived = threading.Condition()
        spec = spec_of(model, self._take, max_running, kv_cache_bytes, options, files)
        self.policy = spec.policy
        self.engine: Engine = make_engine(spec)

    def _take(self, batch: Sequence[Generated]) -> None:
        with self._arrived:
            self.delivered += batch
            self._arrived.notify_all()

    def wait_for(self, count: int) -> list[Generated]:
        deadline = time.monotonic() + PATIENCE_S
        with self._arrived:
            while len(self.delivered) < count and time.monotonic() < deadline:
                self._arrived.wait(0.1)
                if self.engine.stopped.done():
                    self.engine.stopped.result()
            assert len(self.delivered) >= count, f"{len(self.delivered)} of {count} samples ended within {PATIENCE_S} s"
            return self.delivered

    def generate(self, samples: Sequence[SampleRequest]) -> dict[str, Generated]:
        self.delivered = []
        self.engine.submit(samples)
        return {generated.sample.id: generated for generated in self.wait_for(len(samples))}

    def load(self, number: int, model: PreTrainedModel) -> None:
        tensors = raw_tensors(model)
        swapped = self.engine.load(manifest_of(number, tensors).version, tensors)
        swapped.result(PATIENCE_S)


def sample(
    name: str, prompt: Sequence[int], max_new_tokens: int, sampling: Sampling | None = None, index: int = 0
) -> SampleRequest:
    return SampleRequest(
        name, np.array(prompt, dtype=np.int32), max_new_tokens, sampling or Sampling(), seed=7, index=index
    )


def response(generated: Generated) -> list[int]:
    return [token for span in generated.spans for token in span.tokens.tolist()]


def logprobs(generated: Generated, full: bool = True) -> np.ndarray:
    return np.concatenate([span.full_logprobs if full else span.logprobs for span in generated.spans])


@torch.no_grad()
def recomputed(model: PreTrainedModel, generated: Generated) -> np.ndarray:
    """log softmax(logits) of the response's tokens by one plain forward pass of Hugging Face."""
    tokens = torch.tensor([generated.sample.tokens.tolist() + response(generated)])
    first = len(generated.sample.tokens)
    table = model(tokens).logits[0, first - 1 : -1].log_softmax(-1)
    return table.gather(1, tokens[0, first:, None]).squeeze(1).numpy()
