"""vLLM as the rollout service runs it, against bare vLLM on the same requests: SmolLM2-135M on one thread.

Ours is the whole way of a sample from the worker's call to its delivery: the engine's own process, each token with both
log-probabilities sent back as it is drawn, stamped with its version. Bare vLLM is `LLM.generate`, in process, with the
log-probability of each token. The two take turns, and the figure is the median of the rounds' ratios.

    python benchmarks/vllm_service.py --vllm-python PATH [--batch 32] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from transformers import AutoModelForCausalLM

from benchmarks.engine import Ours, Work, endless_files, has_vllm, raw_tensors, seconds, smollm2_folder, vllm_seconds
from benchmarks.report import Figure, report
from perilune.recipe import VllmEngineTable


def service_seconds(folder: Path, work: Work, batch_size: int) -> float:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ours = Ours(endless_files(folder), raw_tensors(model), batch_size, options=VllmEngineTable())
    del model
    ours.run(Work(work.prompts[:8], [4] * 8))
    took_s = seconds(lambda: ours.run(work))
    ours.engine.close()
    return took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="samples at once (default: 32)")
    parser.add_argument("--waves", type=int, default=2, help="samples per place (default: 2)")
    parser.add_argument("--max-tokens", type=int, default=48, help="of the longest sample (default: 48)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--vllm-python", default=sys.executable, help="an interpreter that has vLLM")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not has_vllm(options.vllm_python):
        sys.exit(f"{options.vllm_python} has no vLLM: see docs/engines.md")
    os.environ["PERILUNE_ENGINE_PYTHON"] = options.vllm_python
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    folder = smollm2_folder(options.dtype)
    work = Work.mixed(options.batch * options.waves, (20, 60), options.max_tokens, (100, 40_000))
    rates: list[tuple[float, float]] = []
    for number in range(options.rounds):
        bare = work.num_tokens / vllm_seconds(options.vllm_python, folder, options.dtype, work, options.batch)
        ours = work.num_tokens / service_seconds(folder, work, options.batch)
        rates.append((bare, ours))
        print(f"round {number + 1}: bare vLLM {bare:.1f}, through the service {ours:.1f} tokens/s", flush=True)
    bare, ours = sorted(rates, key=lambda pair: pair[1] / pair[0])[len(rates) // 2]
    figures = {
        "vllm_through_the_service": Figure.against(bare, ours, "tokens/s"),
        "worst_ratio": Figure(min(ours / bare for bare, ours in rates), "ratio"),
        "mean_ratio": Figure(statistics.fmean(ours / bare for bare, ours in rates), "ratio"),
    }
    report(f"vLLM, {options.batch} places, one thread", figures, options.json)


if __name__ == "__main__":
    main()
