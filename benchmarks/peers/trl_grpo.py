"""The peer of benchmarks/loop.py: TRL's GRPOTrainer on the same warmed-up model, prompts, batch and token limit.

Reads a job as JSON from standard input and writes one JSON line a measurement to the file that the job names: seconds
of training so far (evaluation is not counted), iterations, held-out accuracy sampled at temperature 1. Stops at the
target or at the time limit.
"""

from __future__ import annotations

import json
import random
import sys
import time

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from perilune.tasks import find_task


def is_right(text: str, reference: str) -> bool:
    """The task's own rule: what follows the last `answer:`, as an unordered pair."""
    return sorted(text.rpartition("answer:")[2].split()) == sorted(reference.split())


class Clock(TrainerCallback):
    """Measures held-out accuracy every few iterations with the clock stopped."""

    def __init__(self, job: dict, tokenizer, questions: list[str], references: list[str]) -> None:
        self._job, self._tokenizer, self._questions, self._references = job, tokenizer, questions, references
        self._paused_s = 0.0
        self._started = time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self._started = time.perf_counter()
        self._measure(0, kwargs["model"], control)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        iteration, rest = divmod(state.global_step, self._job["steps_per_iteration"])
        if rest == 0 and iteration % self._job["evaluate_every"] == 0:
            self._measure(iteration, kwargs["model"], control)

    def _measure(self, iteration: int, model, control) -> None:
        began = time.perf_counter()
        seconds = began - self._started - self._paused_s
        accuracy = self._accuracy(model)
        self._paused_s += time.perf_counter() - began
        with open(self._job["measurements"], "a") as file:
            file.write(json.dumps({"seconds": seconds, "iteration": iteration, "accuracy": accuracy}) + "\n")
        if accuracy >= self._job["target"] or seconds > self._job["max_seconds"]:
            control.should_training_stop = True

    @torch.inference_mode()
    def _accuracy(self, model) -> float:
        model.eval()
        right = 0
        for start in range(0, len(self._questions), 128):
            chats = [[{"role": "user", "content": q}] for q in self._questions[start : start + 128]]
            prompts = self._tokenizer.apply_chat_template(
                chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
            )
            tokens = model.generate(
                **prompts,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=self._job["max_tokens"],
            )
            answers = self._tokenizer.batch_decode(tokens[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
            references = self._references[start : start + 128]
            right += sum(is_right(a, r) for a, r in zip(answers, references, strict=True))
        model.train()
        return right / len(self._questions)


def main() -> None:
    job = json.loads(sys.stdin.read())
    torch.set_num_threads(job["threads"])
    random.seed(job["seed"])
    task = find_task(job["task"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    train = [task.problem(job["seed"], index) for index in range(job["num_train"])]
    heldout = [task.problem(job["seed"], index, held_out=True) for index in range(job["num_heldout"])]
    rows = [{"prompt": [{"role": "user", "content": task.question(p)}], "reference": p.answer} for p in train]

    def reward(completions, reference, **columns) -> list[float]:
        return [float(is_right(c[0]["content"], r)) for c, r in zip(completions, reference, strict=True)]

    samples_per_step = job["prompts_per_iteration"] * job["group_size"] // job["steps_per_iteration"]
    config = GRPOConfig(
        output_dir=job["output"],
        per_device_train_batch_size=samples_per_step,
        gradient_accumulation_steps=1,
        steps_per_generation=job["steps_per_iteration"],
        num_generations=job["group_size"],
        max_completion_length=job["max_tokens"],
        max_steps=job["max_iterations"] * job["steps_per_iteration"],
        learning_rate=job["learning_rate"],
        lr_scheduler_type="constant",
        adam_beta1=0.9,
        adam_beta2=0.95,
        temperature=1.0,
        seed=job["seed"],
        use_cpu=True,
        bf16=False,
        fp16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        logging_steps=1_000_000,
        disable_tqdm=True,
    )
    clock = Clock(job, tokenizer, [task.question(p) for p in heldout], [p.answer for p in heldout])
    GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[clock],
    ).train()


if __name__ == "__main__":
    main()
