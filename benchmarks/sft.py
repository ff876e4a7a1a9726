"""Supervised fine-tuning: loss and speed against TRL's SFTTrainer, on the same model and conversations.

    python -m benchmarks.sft [--rows 512] [--steps 12] [--model PATH] [--json FILE]

Both sides begin with the same weights and see the same examples in the same order, with the same AdamW and rate, in
float32 on one thread; TRL with `assistant_only_loss` on a template that marks what is generated, without gradient
checkpointing. TRL pads each batch; ours packs it. The sides take turns; each one's best round counts, without its
first step. The losses must agree at every step to 1e-3 nats, or it ends with status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

# One thread each: the figures should compare loops, not schedulers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from transformers.utils.logging import disable_progress_bar
from trl import SFTConfig, SFTTrainer

from benchmarks.report import Figure, report
from perilune.data.examples import Shuffled
from perilune.sft.plan import read_plan
from services.trainer.policy.sources import load_policy
from services.trainer.stages.runner import StageStep, run_stages

BATCH, RATE, ROUNDS, TOLERANCE = 32, 1e-3, 3, 1e-3
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument(
        "--model", type=Path, help="a folder whose tokenizer has ChatML's tokens; a small one if not given"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = conversations(arguments.rows)
        model = arguments.model or small_model(folder / "small", rows)
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(perilune(model, rows, arguments.steps, folder))
            theirs.append(trl(model, rows, arguments.steps, folder))
    gap = max(abs(left - right) for left, right in zip(ours[0].losses, theirs[0].losses, strict=True))
    speed, peer = (max(side.tokens_per_second for side in sides) for sides in (ours, theirs))
    figures = {
        "tokens a second": Figure.against(peer, speed, "tokens/s"),
        "loss of the last step": Figure.against(theirs[0].losses[-1], ours[0].losses[-1], "nats"),
        "largest gap of a step's loss": Figure(gap, "nats"),
    }
    report("Supervised fine-tuning against TRL, one thread, float32", figures, arguments.json)
    if gap > TOLERANCE:
        sys.exit(f"the losses lie {gap} apart")


class Round:
    """The steps of one side: losses, and seconds from the end of the first step to the end of the last."""

    def __init__(self, tokens: list[int]) -> None:
        self.losses: list[float] = []
        self._tokens, self._ends = tokens, list[float]()

    def step(self, loss: float | None = None) -> None:
        self._ends.append(time.perf_counter())
        if loss is not None:
            self.losses.append(loss)

    @property
    def tokens_per_second(self) -> float:
        return sum(self._tokens[1:]) / (self._ends[-1] - self._ends[0])


def perilune(model: Path, rows: list[dict], steps: int, folder: Path) -> Round:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = [f"batch_size={BATCH}", f"num_steps={steps}", f"learning_rate={RATE}", "schedule=constant", "warmup_steps=0"]
    keys += ["weight_decay=0.0", f"checkpoint_every={steps}"]
    plan = read_plan([data], {}, str(model), None, [f"defaults.{key}" for key in keys])
    policy, tokens = load_policy(str(model), lambda each: setattr(each, "chat_template", TEMPLATE)), list[int]()
    found = Round(tokens)

    def on_step(step: StageStep) -> None:
        found.step(step.metrics["loss"])
        tokens.append(int(step.metrics["num_tokens"]))

    run_stages([(0, plan.stages[0])], policy, plan, on_step=on_step)
    return found


def trl(model: Path, rows: list[dict], steps: int, folder: Path) -> Round:
    order = Shuffled(range(len(rows)), seed=0)
    ordered = [rows[order[number]] for number in range(steps * BATCH)]
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    lengths = [len(tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]) for row in ordered]
    found = Round([sum(lengths[start : start + BATCH]) for start in range(0, len(lengths), BATCH)])

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            found.step()

        def on_log(self, args, state, control, logs=None, **kwargs) -> None:
            if logs and "loss" in logs:
                found.losses.append(logs["loss"])

    config = SFTConfig(
        output_dir=str(folder / "trl"),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        weight_decay=0.0,
        max_grad_norm=1.0,
        assistant_only_loss=True,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        train_sampling_strategy="sequential",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        max_length=None,
    )
    SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list(ordered),
        processing_class=tokenizer,
        callbacks=[Clock()],
    ).train()
    return found


def conversations(count: int) -> list[dict]:
    """Sums with reasoning of one to a dozen lines: lengths differ as they do in chats."""
    rng, rows = random.Random(0), []
    for _ in range(count):
        numbers = [rng.randrange(1000) for _ in range(rng.randrange(2, 14))]
        totals = [sum(numbers[: place + 1]) for place in range(len(numbers))]
        said = "\n".join(f"{total - n} + {n} = {total}" for n, total in zip(numbers[1:], totals[1:], strict=True))
        asked = {"role": "user", "content": "What is " + " + ".join(map(str, numbers)) + "?"}
        more = [{"role": "user", "content": "Plus 1?"}, {"role": "assistant", "content": f"{totals[-1] + 1}"}]
        rows.append(
            {"messages": [asked, {"role": "assistant", "content": said}, *(more if rng.random() < 0.5 else [])]}
        )
    return rows


def small_model(folder: Path, rows: list[dict]) -> Path:
    """A Llama of about 2 M parameters with random weights, and a tokenizer that is made of the rows."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    words.train_from_iterator((message["content"] for row in rows for message in row["messages"]), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=special[1], pad_token=special[1])
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
