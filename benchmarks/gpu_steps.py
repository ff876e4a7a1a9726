"""The steps of `benchmarks.gpu`, one to a process: `python -m benchmarks.gpu_steps NAME FILE [--small]`.

A figure is appended to FILE as a line of JSON as soon as it is there.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.optim import AdamW
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from benchmarks.report import Figure
from perilune.recipe import EngineBase, Recipe, TorchEngineTable, VllmEngineTable, check_recipe, load_recipe
from perilune.recipe.trainer import TrainerTable
from perilune.weights import RawTensor, make_delta, manifest_of
from perilune.weights.delta import apply_delta
from services.rollout.engines import make_engine
from services.rollout.engines.base import EngineSpec, Generated, SampleRequest, Sampling
from services.trainer.batch import TrainingGroup, TrainingSample
from services.trainer.learner import Learner
from services.trainer.policy.logprobs import token_logprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import pack_rows
from services.trainer.versions.snapshot import PublishedVersion, raw_tensors, snapshot

ROOT = Path(__file__).resolve().parents[1]
BF16_PEAK = 989e12  # operations a second of an H100's tensor cores in bf16, without sparsity
GROUP_SIZE = 8  # samples that share a prompt
HEAD_CHUNK = 2048  # tokens whose logits the bare loop makes at a time
LOGIT_GAIN = 4.0  # of the last norm: random weights then have logits with a spread of about 3
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Scale:
    """Describes how large everything is: for a card, or tiny for the CPU."""

    device: str
    dtype: torch.dtype
    large: Any  # configurations of models: about 1.5B, 0.6B and 0.5B parameters
    medium: Any
    little: Any
    num_samples: int
    prompt_tokens: tuple[int, int]
    new_tokens: tuple[int, int]
    row_tokens: int
    medium_row_tokens: int
    longest_rows: tuple[int, ...]
    num_prompts: int  # of an iteration of all services
    response_tokens: int
    kv_cache_bytes: int
    num_rounds: int
    overrides: tuple[str, ...] = ()  # of recipes/gpu.toml


def card_scale() -> Scale:
    """Returns what is measured on a card: the sizes of Qwen2's 1.5B and 0.5B and of Qwen3's 0.6B, with random
    weights."""
    common = {"vocab_size": 151_936, "max_position_embeddings": 131_072, "tie_word_embeddings": True}
    one_half = LlamaConfig(
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        **common,
    )
    half = LlamaConfig(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        **common,
    )
    qwen3 = Qwen3Config(
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        **common,
    )
    return Scale(
        device="cuda",
        dtype=torch.bfloat16,
        large=one_half,
        medium=qwen3,
        little=half,
        num_samples=256,
        prompt_tokens=(64, 512),
        new_tokens=(32, 512),
        row_tokens=8192,
        medium_row_tokens=16_384,
        longest_rows=(16_384, 32_768, 65_536, 131_072),
        num_prompts=64,
        response_tokens=500,
        kv_cache_bytes=16 << 30,
        num_rounds=3,
    )


def small_scale() -> Scale:
    """The same steps in seconds, on a CPU."""
    tiny = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # of 32 elements each, which vLLM has kernels for on a CPU too
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    return Scale(
        device="cpu",
        dtype=torch.float32,
        large=tiny,
        medium=tiny,
        little=tiny,
        num_samples=16,
        prompt_tokens=(4, 16),
        new_tokens=(4, 24),
        row_tokens=128,
        medium_row_tokens=256,
        longest_rows=(128, 256),
        num_prompts=2,
        response_tokens=8,
        kv_cache_bytes=1 << 24,
        num_rounds=1,
        overrides=(
            "trainer.num_iterations=1",
            "rollout.prompts_per_iteration=2",
            "rollout.group_size=2",
            "rollout.max_tokens=4",
            "prompts.num_heldout=2",
            "evaluation.num_problems=2",
            "trainer.precision=fp32",
            "model.dtype=float32",
        ),
    )


Say = Callable[..., None]  # a figure's name, value and unit, and its peer if it has one


def main() -> None:
    """Runs one step."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("step", choices=sorted(STEPS))
    parser.add_argument("file", type=Path)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.small:
        torch.set_num_threads(1)

    def say(name: str, value: float, unit: str, peer: float | None = None) -> None:
        figure = Figure(value, unit) if peer is None else Figure.against(peer, value, unit)
        with arguments.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([f"{arguments.step}: {name}", asdict(figure)]) + "\n")

    STEPS[arguments.step](small_scale() if arguments.small else card_scale(), say)


# --- Models and what is asked of them -----------------------------------------------------------------------------


def random_model(config: Any, scale: Scale, dtype: torch.dtype) -> PreTrainedModel:
    """A model of random weights, made where it computes."""
    with torch.device(scale.device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        model.base_model.norm.weight.mul_(LOGIT_GAIN)
    return model


def tokenizer_of() -> PreTrainedTokenizerFast:
    """A tokenizer that knows few words and ends nothing: lengths are forced."""
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "answer": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", chat_template=template)


def files_of(model: PreTrainedModel) -> dict[str, bytes]:
    """The small files of a model's folder."""
    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        tokenizer_of().save_pretrained(folder)
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


@dataclass(frozen=True)
class Work:
    """Samples to generate: prompts, and for each how many tokens."""

    prompts: list[list[int]]
    lengths: list[int]

    @property
    def num_tokens(self) -> int:
        """The tokens that are wanted, of all samples."""
        return sum(self.lengths)


def work_of(scale: Scale) -> Work:
    """Groups of samples that share a prompt, with lengths spread evenly, in random order."""
    random = np.random.default_rng(0)
    vocabulary = scale.large.vocab_size
    prompts = [
        random.integers(3, vocabulary, random.integers(*scale.prompt_tokens)).tolist()
        for _ in range(-(-scale.num_samples // GROUP_SIZE))
    ]
    lengths = np.linspace(*scale.new_tokens, scale.num_samples).round().astype(int)
    return Work(
        [prompts[index // GROUP_SIZE] for index in range(scale.num_samples)], random.permutation(lengths).tolist()
    )


class Ours:
    """An engine, called as the rollout worker calls it."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        tensors: Sequence[RawTensor],
        scale: Scale,
        options: EngineBase | None = None,
    ) -> None:
        self._generated: list[Generated] = []
        self._num_wanted = 0
        self._all_there = threading.Event()
        self.engine = make_engine(
            EngineSpec(
                files,
                manifest_of(0, tensors).version,
                tensors,
                self._take,
                scale.num_samples,
                scale.kv_cache_bytes,
                options or TorchEngineTable(),
                scale.device,
            )
        )

    def _take(self, generated: Sequence[Generated]) -> None:
        self._generated += generated
        if len(self._generated) >= self._num_wanted:
            self._all_there.set()

    def submit(self, work: Work, watch: Callable[[int, int], None] | None = None) -> None:
        """Submits samples; `watch` is called with a sample's index and its version whenever it has new tokens."""
        self._generated, self._num_wanted = [], len(work.prompts)
        self._all_there.clear()
        self.engine.submit(
            [
                SampleRequest(
                    str(index),
                    np.array(prompt, dtype=np.int32),
                    length,
                    Sampling(),
                    seed=0,
                    index=index,
                    watch=(lambda span, index=index: watch(index, span.policy.number)) if watch else None,
                )
                for index, (prompt, length) in enumerate(zip(work.prompts, work.lengths, strict=True))
            ]
        )

    def wait(self) -> list[Generated]:
        """Waits for all samples that were submitted. The engine's own error, if it ended."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._all_there.wait(0.1):
            if self.engine.stopped.done():
                self.engine.stopped.result()
            assert time.monotonic() < deadline, "the engine did not deliver"
        return self._generated

    def run(self, work: Work) -> list[Generated]:
        """Submits and waits."""
        self.submit(work)
        return self.wait()


def seconds(run: Callable[[], object], device: str = "cpu") -> float:
    """Returns how long a call takes, with all that it has queued on the device."""
    _synchronize(device)
    started = time.perf_counter()
    run()
    _synchronize(device)
    return time.perf_counter() - started


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def give_back(device: str) -> None:
    """Frees what the last part of a step held on the card."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def copy_bandwidth(device: str) -> float:
    """Bytes a second that a plain copy reads and writes, together."""
    num_bytes = (1 << 30) if device == "cuda" else (1 << 24)
    source = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * num_bytes / min(seconds(lambda: target.copy_(source), device) for _ in range(5))


# --- Engines ------------------------------------------------------------------------------------------------------


def bandwidth_bound_s(config: Any, num_parameters: int, itemsize: int, work: Work, bandwidth: float) -> float:
    """The least time to decode that memory allows: weights once a step, and once a token the context before it."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * head * itemsize
    contexts = sum(
        length * len(prompt) + length * (length - 1) // 2
        for prompt, length in zip(work.prompts, work.lengths, strict=True)
    )
    return (max(work.lengths) * num_parameters * itemsize + contexts * token_bytes) / bandwidth


def generate_s(model: PreTrainedModel, work: Work, scale: Scale) -> float:
    """Seconds of Hugging Face's generate: one batch, padded left, until its longest sample has its tokens."""
    longest = max(map(len, work.prompts))
    ids = torch.tensor([[0] * (longest - len(each)) + each for each in work.prompts], device=scale.device)
    mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in work.prompts], device=scale.device)

    def generate(num_tokens: int) -> None:
        settings = GenerationConfig(
            do_sample=True, top_k=0, max_new_tokens=num_tokens, min_new_tokens=num_tokens, pad_token_id=0
        )
        with torch.inference_mode():
            model.generate(ids, attention_mask=mask, generation_config=settings)

    generate(2)
    return seconds(lambda: generate(max(work.lengths)), scale.device)


def engine(scale: Scale, say: Say) -> None:
    """The torch engine against generate on the same model, and how soon all samples run again after a swap."""
    model = random_model(scale.large, scale, scale.dtype)
    work, files, tensors = work_of(scale), files_of(model), raw_tensors(model, scale.dtype)
    bound_s = bandwidth_bound_s(
        scale.large, model.num_parameters(), scale.dtype.itemsize, work, copy_bandwidth(scale.device)
    )
    generate_rate = work.num_tokens / generate_s(model, work, scale)
    ours = Ours(files, tensors, scale)
    ours.run(Work(work.prompts, [2] * len(work.prompts)))
    generated: list[Generated] = []
    ours_s = seconds(lambda: generated.extend(ours.run(work)), scale.device)
    say("useful tokens/s against generate", work.num_tokens / ours_s, "tokens/s", generate_rate)
    say("share of the bandwidth bound", bound_s / ours_s, "share")
    gaps = logprob_gaps(model, generated[:8])
    say("mean gap of a log-probability to a plain pass", statistics.fmean(gaps), "nats")
    say("largest gap of a log-probability to a plain pass", max(gaps), "nats")
    say("all samples running again after a swap", running_again_s(ours, work, scale, tensors), "s")
    ours.engine.close()


def running_again_s(ours: Ours, work: Work, scale: Scale, tensors: Sequence[RawTensor]) -> float:
    """From the call that swaps a version in until each of the samples has a token of it; their contexts are read."""
    longest = max(scale.new_tokens)
    num_first = longest // 2  # tokens that are there when the version changes
    lock, all_running, all_again = threading.Lock(), threading.Event(), threading.Event()
    counts, again = dict.fromkeys(range(len(work.prompts)), 0), set[int]()

    def watch(index: int, number: int) -> None:
        with lock:
            counts[index] += 1
            if min(counts.values()) >= num_first:
                all_running.set()
            if number == 1:
                again.add(index)
            if len(again) == len(counts):
                all_again.set()

    ours.submit(Work(work.prompts, [4 * longest] * len(work.prompts)), watch)
    assert all_running.wait(PATIENCE_S)
    version = manifest_of(1, tensors).version
    started = time.perf_counter()
    ours.engine.load(version, tensors)
    assert all_again.wait(PATIENCE_S)
    return time.perf_counter() - started


@torch.inference_mode()
def logprob_gaps(model: PreTrainedModel, generated: Sequence[Generated]) -> list[float]:
    """Returns how far the engine's log-probability of each token is from a plain forward pass's, in nats."""
    found: list[float] = []
    for each in generated:
        tokens = torch.tensor(np.concatenate([each.sample.tokens, *(span.tokens for span in each.spans)])).long()
        engines = torch.tensor(np.concatenate([span.full_logprobs for span in each.spans]))
        hidden = model.base_model(tokens[None].to(model.device), use_cache=False).last_hidden_state[0]
        logits = model.get_output_embeddings()(hidden[-len(engines) - 1 : -1]).float()
        plain = logits.log_softmax(-1).cpu().gather(1, tokens[-len(engines) :, None]).squeeze(1)
        found += (plain - engines).abs().tolist()
    return found


def has_vllm(python: str) -> bool:
    """Tests whether an interpreter finds vLLM."""
    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    return subprocess.run([python, "-c", probe], check=False).returncode == 0


BARE_VLLM = """
import json, sys, time
work = json.load(open(sys.argv[1]))
from vllm import LLM, SamplingParams, TokensPrompt
llm = LLM(model=work["model"], dtype=work["dtype"], max_num_seqs=len(work["prompts"]), load_format="dummy",
          skip_tokenizer_init=True, disable_log_stats=True, enforce_eager=work["small"],
          kv_cache_memory_bytes=work["kv_cache_bytes"])
def run(lengths):
    settings = [SamplingParams(temperature=1.0, max_tokens=n, ignore_eos=True, logprobs=0, detokenize=False, seed=i)
                for i, n in enumerate(lengths)]
    answers = llm.generate([TokensPrompt(prompt_token_ids=p) for p in work["prompts"]], settings, use_tqdm=False)
    assert [len(answer.outputs[0].token_ids) for answer in answers] == lengths
run([2] * len(work["prompts"]))
llm.reset_prefix_cache()
started = time.perf_counter()
run(work["lengths"])
json.dump(time.perf_counter() - started, open(sys.argv[2], "w"))
"""


def vllm(scale: Scale, say: Say) -> None:
    """vLLM through the service against bare vLLM, on the same requests; the model's weights are random in both."""
    python = os.environ.get("PERILUNE_ENGINE_PYTHON", sys.executable)
    if not has_vllm(python):
        sys.exit(f"{python} has no vLLM: name one that has it with PERILUNE_ENGINE_PYTHON (docs/engines.md)")
    work, model = work_of(scale), random_model(scale.large, scale, scale.dtype)
    files, tensors = files_of(model), raw_tensors(model, scale.dtype)
    del model
    give_back(scale.device)
    with tempfile.TemporaryDirectory(prefix="perilune-vllm-") as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        request = vars(work) | {
            "model": name, "dtype": str(scale.dtype).removeprefix("torch."), "small": scale.device == "cpu",
            "kv_cache_bytes": scale.kv_cache_bytes,
        }  # fmt: skip
        (folder / "work").write_text(json.dumps(request), encoding="utf-8")
        subprocess.run([python, "-c", BARE_VLLM, str(folder / "work"), str(folder / "took")], check=True)
        bare_s = json.loads((folder / "took").read_text())
    ours = Ours(files, tensors, scale, VllmEngineTable())
    ours.run(Work(work.prompts, [2] * len(work.prompts)))
    ours_s = seconds(lambda: ours.run(work))
    ours.engine.close()
    say("through the service against bare", work.num_tokens / ours_s, "tokens/s", work.num_tokens / bare_s)


# --- Training -----------------------------------------------------------------------------------------------------


def training_recipe(scale: Scale, row_tokens: int, **changes: Any) -> Recipe:
    """A recipe whose trainer takes one step an iteration, in bf16 on a card."""
    trainer = {
        "num_iterations": 1, "learning_rate": 1e-6, "microbatch_tokens": row_tokens,
        "precision": "fp32" if scale.device == "cpu" else "bf16",
    }  # fmt: skip
    return check_recipe(
        {
            "name": "gpu",
            "model": {"path": "random"},
            "prompts": {"source": "task", "name": "sums"},
            "reward": {"graders": [{"name": "numeric"}]},
            "trainer": trainer | changes,
        }
    )


def groups_of(num_tokens: int, longest: int, vocabulary: int, seed: int) -> list[TrainingGroup]:
    """Pairs of samples with so many tokens together, of lengths that no other seed has; a quarter is the prompt."""
    random = np.random.default_rng(seed)
    lengths: list[int] = []
    while (left := num_tokens - sum(lengths)) > 0:
        lengths.append(min(left, int(random.integers(longest // 8, longest + 1))))
    samples = []
    for number, length in enumerate(lengths):
        in_loss = np.arange(length) >= max(1, length // 4)
        nothing = np.full(length, np.nan, np.float32)
        tokens = random.integers(3, vocabulary, length)
        samples.append(TrainingSample(f"{seed}/{number}", tokens, in_loss, nothing, float(number % 2), number % 2 == 1))
    return [TrainingGroup(str(start), samples[start : start + 2]) for start in range(0, len(samples), 2)]


def lengths_in(groups: Sequence[TrainingGroup]) -> list[int]:
    """The lengths of all samples."""
    return [len(sample.tokens) for group in groups for sample in group.samples]


def training_operations(model: PreTrainedModel, lengths: Sequence[int]) -> float:
    """Operations of forward and backward: 6 a parameter and token, and those of causal attention (PaLM, app. B)."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = config.num_hidden_layers * config.num_attention_heads * head
    return 6.0 * model.num_parameters() * sum(lengths) + 6.0 * width * sum(length**2 for length in lengths)


def bare_step(model: PreTrainedModel, optimizer: AdamW, rows: Sequence[Tensor], bf16: bool) -> None:
    """The loop that one writes without this project: rows as single causal sequences, the head in chunks."""

    def loss_of(hidden: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(model.get_output_embeddings()(hidden).float(), targets, reduction="sum")

    for tokens in rows:
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bf16):
            hidden = model.base_model(tokens[None, :-1], use_cache=False).last_hidden_state[0]
            parts = zip(hidden.split(HEAD_CHUNK), tokens[1:].split(HEAD_CHUNK), strict=True)
            losses = [checkpoint(loss_of, *part, use_reentrant=False) for part in parts]
        (torch.stack(losses).sum() / len(tokens)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def bare_rate(scale: Scale, config: Any, row_tokens: int, num_rows: int) -> float:
    """Tokens a second of the bare loop, in the best round."""
    model = random_model(config, scale, torch.float32)
    optimizer = AdamW(model.parameters(), lr=1e-6, fused=True)
    rows = [torch.randint(3, config.vocab_size, (row_tokens,), device=scale.device) for _ in range(num_rows)]

    def step() -> None:
        bare_step(model, optimizer, rows, scale.device != "cpu")

    step()
    return num_rows * row_tokens / min(seconds(step, scale.device) for _ in range(scale.num_rounds))


def trained_rate(scale: Scale, config: Any, row_tokens: int, num_rows: int, longest: int) -> tuple[float, float]:
    """Tokens and operations a second of the learner on samples whose lengths are new in each round: the median's."""
    policy = Policy(random_model(config, scale, torch.float32), tokenizer_of())
    learner = Learner(policy, training_recipe(scale, row_tokens))
    found = []
    for number in range(scale.num_rounds + 1):
        groups = groups_of(num_rows * row_tokens, longest, config.vocab_size, seed=number)
        lengths = lengths_in(groups)
        took_s = seconds(lambda groups=groups: learner.train(0, groups), scale.device)
        found.append((sum(lengths) / took_s, training_operations(policy.model, lengths) / took_s))
    return sorted(found[1:])[len(found[1:]) // 2]  # the first one made the kernels ready


def trainer(scale: Scale, say: Say) -> None:
    """The large model, rows whose samples are a quarter of them at most, against the bare loop."""
    bare = bare_rate(scale, scale.large, scale.row_tokens, num_rows=4)
    give_back(scale.device)
    rate, operations = trained_rate(scale, scale.large, scale.row_tokens, 4, scale.row_tokens // 4)
    say("tokens/s against the bare loop", rate, "tokens/s", bare)
    say("share of the card's bf16 peak", operations / BF16_PEAK, "share")
    _say_peak(scale, say)


def trainer_small(scale: Scale, say: Say) -> None:
    """The medium model, rows that are one sample: long contexts."""
    rate, operations = trained_rate(scale, scale.medium, scale.medium_row_tokens, 2, scale.medium_row_tokens)
    say("tokens/s", rate, "tokens/s")
    say("share of the card's bf16 peak", operations / BF16_PEAK, "share")
    _say_peak(scale, say)


def _say_peak(scale: Scale, say: Say) -> None:
    if scale.device == "cuda":
        say("memory at most", torch.cuda.max_memory_allocated() / 1e9, "GB")


def longest_row(scale: Scale, say: Say) -> None:
    """Rows of one sample, longer and longer, until the card has no room; with checkpointing of activations."""
    policy = Policy(random_model(scale.large, scale, torch.float32), tokenizer_of())
    changes = {"activation_checkpointing": "layers"} if "activation_checkpointing" in TrainerTable.model_fields else {}
    for num_tokens in scale.longest_rows:
        learner = Learner(policy, training_recipe(scale, num_tokens, **changes))
        groups = groups_of(num_tokens, 8 * num_tokens, scale.large.vocab_size, seed=0)
        try:
            took_s = seconds(lambda groups=groups, learner=learner: learner.train(0, groups), scale.device)
        except torch.OutOfMemoryError as error:
            print(f"a row of {num_tokens} tokens does not fit: {error}")
            return
        finally:
            del learner
            give_back(scale.device)
        say("tokens", float(num_tokens), "tokens")
        say(f"tokens/s at {num_tokens} tokens", num_tokens / took_s, "tokens/s")


# --- Weights ------------------------------------------------------------------------------------------------------


def weights(scale: Scale, say: Say) -> None:
    """A version from the trainer's model to the engine that serves it, and a delta of a small step."""
    policy = Policy(random_model(scale.large, scale, torch.float32), tokenizer_of())
    first = snapshot(policy, 0, scale.dtype)
    num_bytes = first.state.manifest.num_bytes
    ours = Ours(policy.model_files, first.state.tensors, scale)
    plain_s = min(round_trip_s(num_bytes, scale.device) for _ in range(3))
    served = [served_s(policy, number, scale, ours) for number in range(1, 3 + scale.num_rounds)]
    say("version to served", min(served), "s", plain_s)
    ours.engine.close()
    say("size", num_bytes / 1e9, "GB")
    before = snapshot(policy, 0, scale.dtype)
    _adam_like_step(policy, 1e-6)
    delta_figures(before, snapshot(policy, 1, scale.dtype), say)


def served_s(policy: Policy, number: int, scale: Scale, ours: Ours) -> float:
    """From the end of an optimiser step until the engine, in this process and on this card, serves the version."""
    _adam_like_step(policy, 1e-6)
    _synchronize(scale.device)
    started = time.perf_counter()
    version = snapshot(policy, number, scale.dtype)
    swapped: Future[None] = ours.engine.load(version.policy, version.state.tensors)
    swapped.result(PATIENCE_S)
    return time.perf_counter() - started


@torch.no_grad()
def _adam_like_step(policy: Policy, rate: float) -> None:
    """AdamW's first step: each weight by the rate, up or down."""
    for parameter in policy.model.parameters():
        parameter.add_(torch.randn_like(parameter).sign_(), alpha=rate)


def round_trip_s(num_bytes: int, device: str) -> float:
    """A plain copy to memory and back: to pinned memory where there is a card."""
    source = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    host = torch.empty(num_bytes, dtype=torch.uint8, device="cpu", pin_memory=device == "cuda")

    def there_and_back() -> None:
        host.copy_(source, non_blocking=True)
        source.copy_(host, non_blocking=True)

    return seconds(there_and_back, device)


def delta_figures(before: PublishedVersion, after: PublishedVersion, say: Say) -> None:
    """Encoding and applying the change between two versions."""
    found: list[Any] = []
    encode_s = seconds(lambda: found.append(make_delta(before.state, after.state)))
    (delta,) = found
    if delta is None:
        print("the whole version is hardly larger than the delta")
        return
    apply_s = seconds(lambda: apply_delta(before.state, delta.manifest, memoryview(delta.payload)))
    say("delta, encode and apply", encode_s + apply_s, "s")
    say("delta, encode", encode_s, "s")
    say("delta, apply", apply_s, "s")
    say("delta's share of the whole", delta.num_bytes / after.state.manifest.num_bytes, "share")


# --- Both together ------------------------------------------------------------------------------------------------


def exact(scale: Scale, say: Say) -> None:
    """The same tokens by the engine that drew them and by the trainer, both in float32."""
    model = random_model(scale.little, scale, torch.float32)
    work = work_of(scale)
    half = Work(work.prompts[: len(work.prompts) // 2], work.lengths[: len(work.prompts) // 2])
    ours = Ours(files_of(model), raw_tensors(model, torch.float32), scale)
    generated = ours.run(half)
    ours.engine.close()
    policy = Policy(model, tokenizer_of())
    gaps = [gap for each in generated for gap in trainer_gaps(policy, each)]
    say("largest gap of a log-probability", max(gaps), "nats")
    say("mean gap of a log-probability", statistics.fmean(gaps), "nats")


@torch.no_grad()
def trainer_gaps(policy: Policy, generated: Generated) -> list[float]:
    """Returns how far the trainer's log-probability of each token is from the engine's, in nats."""
    written = np.concatenate([span.tokens for span in generated.spans])
    engines = torch.tensor(np.concatenate([span.full_logprobs for span in generated.spans]))
    tokens = np.concatenate([generated.sample.tokens, written]).astype(np.int64)
    (row,) = pack_rows([tokens], [np.arange(len(tokens)) >= len(tokens) - len(written)], max_tokens=len(tokens))
    return (token_logprobs(policy.model, row).cpu() - engines).abs().tolist()


def hybrid(scale: Scale, say: Say) -> None:
    """`benchmarks.hybrid` with the large model: two processes that take turns on the card."""
    from benchmarks.hybrid import measure

    with saved_model(scale, scale.large) as folder:
        measured = measure(str(folder), num_rounds=scale.num_rounds)
    say("to the engine", statistics.median(measured["to the engine, in all"]), "s")
    say("back to the trainer", statistics.median(measured["to the trainer: until all is back, in all"]), "s")
    for name in (name for name in measured if name.startswith(("memory", "card"))):
        say(name, statistics.median(measured[name]), "MB")


class saved_model:
    """A folder with a random model as the trainer loads one."""

    def __init__(self, scale: Scale, config: Any) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="perilune-model-")
        model = random_model(config, scale, scale.dtype)
        model.save_pretrained(self._folder.name)
        tokenizer = tokenizer_of()
        tokenizer.add_special_tokens({"eos_token": "<unk>"})
        tokenizer.save_pretrained(self._folder.name)

    def __enter__(self) -> Path:
        give_back("cuda" if torch.cuda.is_available() else "cpu")
        return Path(self._folder.name)

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def services(scale: Scale, say: Say) -> None:
    """Iterations of all services with a random model: the time in which neither engine nor trainer is at work."""
    from benchmarks.loop import run_recipe

    with saved_model(scale, scale.little) as folder, tempfile.TemporaryDirectory() as home:
        recipe = training_recipe(scale, scale.row_tokens, num_iterations=4, checkpoint_every=100)
        document = recipe.model_dump(mode="json") | {
            "model": {"path": str(folder), "dtype": str(scale.dtype).removeprefix("torch.")},
            "evaluation": {"every": 100, "num_problems": 2},
        }
        document["rollout"] |= {
            "prompts_per_iteration": scale.num_prompts,
            "group_size": GROUP_SIZE,
            "max_tokens": scale.response_tokens,
            "max_running": scale.num_prompts * GROUP_SIZE,
        }
        outcome = asyncio.run(run_recipe(check_recipe(document), Path(home)))
    if len(outcome.polls) > 1:  # iterations that take no time are over before they are looked at
        say("overhead of an iteration", outcome.overhead, "share")
    iterations = [b.time_unix_ns - a.time_unix_ns for a, b in zip(outcome.versions, outcome.versions[1:], strict=False)]
    say("seconds of an iteration", statistics.median(iterations) / 1e9, "s")
    say("ledger balanced", float(outcome.run.ledger.balanced), "1 = yes")


def learn(scale: Scale, say: Say) -> None:
    """recipes/gpu.toml through all services."""
    from benchmarks.loop import run_recipe

    recipe = load_recipe(ROOT / "recipes/gpu.toml", list(scale.overrides))
    with tempfile.TemporaryDirectory() as home:
        outcome = asyncio.run(run_recipe(recipe, Path(home)))
    for mode in ("greedy", "sampled"):
        say(f"held-out accuracy, {mode}", outcome.accuracy(mode, -1), "share", outcome.accuracy(mode, 0) or None)
    say("wall time", outcome.wall_seconds, "s")
    say("ledger balanced", float(outcome.run.ledger.balanced), "1 = yes")


STEPS: dict[str, Callable[[Scale, Say], None]] = {
    "engine": engine,
    "vllm": vllm,
    "trainer": trainer,
    "trainer-small": trainer_small,
    "longest-row": longest_row,
    "weights": weights,
    "exact": exact,
    "hybrid": hybrid,
    "services": services,
    "learn": learn,
}

if __name__ == "__main__":
    main()
