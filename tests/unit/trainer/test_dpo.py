"""DPO: rows as pairs, its loss by hand and beside TRL's, and that a stage goes on where it was left."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from perilune.data.examples import Turn, pair_of_row, read_examples
from perilune.errors import InvalidInputError
from perilune.recipe import DpoStage
from services.trainer.learner import InterruptedTraining
from services.trainer.stages.dpo import Dpo
from services.trainer.stages.progress import ProgressFile
from services.trainer.stages.runner import StageStep, run_stages
from tests.unit.trainer.models import recipe, same_bits, state, tiny_policy

ROWS = [
    {"question": "which two of", "chosen": "none", "rejected": "yes yes none"},
    {"question": "of", "chosen": "answer: 3 4", "rejected": "none"},
    {"question": "3 4 5", "chosen": "yes", "rejected": "answer: none none none none"},
]
USER, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("assistant", "c"))
)


def table_of(path: Path, rows: list[Any] = ROWS, **keys: Any) -> DpoStage:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DpoStage.model_validate({"type": "dpo", "path": str(path), "batch_size": 3, "beta": 0.5, **keys})


@pytest.mark.parametrize(
    "row",
    [
        {"question": "a", "chosen": "b", "rejected": "c"},
        {"question": [USER], "chosen": [GOOD], "rejected": "c"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    ],
)
def test_rows_of_pairs(tmp_path: Path, row: Any) -> None:
    table = table_of(tmp_path / "rows.jsonl", [row])
    assert read_examples(table) == [(Turn([USER], "b"),), (Turn([USER], "c"),)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "a", "chosen": "b"}, "here has no key 'rejected'"),
        ({"question": "a", "chosen": "b", "rejected": "b"}, "are the same: there is nothing to prefer"),
        ({"chosen": [USER, GOOD], "rejected": [BAD]}, "'chosen' and 'rejected' share none"),
        ({"question": "a", "chosen": "b", "rejected": 5}, "'rejected' must be text, and is the number 5"),
    ],
)
def test_what_is_no_pair_is_named(tmp_path: Path, row: Any, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        pair_of_row(row, table_of(tmp_path / "rows.jsonl"), "here")


def test_the_better_answer_becomes_likelier(tmp_path: Path) -> None:
    table, steps = table_of(tmp_path / "rows.jsonl", num_steps=8, learning_rate=1e-2), list[StageStep]()
    run_stages([(0, table)], tiny_policy(), recipe(), on_step=steps.append)
    first, last = steps[0].metrics, steps[-1].metrics
    assert first["loss"] == pytest.approx(math.log(2))  # the policy is the reference
    assert (first["margin"], first["accuracy"]) == (0.0, 0.0)
    assert last["margin"] > 1
    assert last["accuracy"] == 1.0


def test_the_loss_does_not_depend_on_how_pairs_share_rows(tmp_path: Path) -> None:
    found = []
    for tokens in (4, 2048):
        policy = tiny_policy(1)
        stage = Dpo(table_of(tmp_path / "rows.jsonl"), policy, recipe(microbatch_tokens=tokens))
        stage.check(lambda: False)
        metrics = stage.accumulate(0, torch.zeros(3, 2))
        found.append((metrics["loss"], policy.model.model.embed_tokens.weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-5)


def test_a_stage_that_was_stopped_goes_on_with_the_reference_of_its_start(tmp_path: Path) -> None:
    table = table_of(tmp_path / "rows.jsonl", epochs=5, batch_size=2, learning_rate=1e-2)
    straight, again, steps = tiny_policy(), tiny_policy(), list[StageStep]()
    setting = recipe(num_threads=1)
    metrics = run_stages([(0, table)], straight, setting)
    file = ProgressFile(tmp_path / "stage.pt", "start")
    with pytest.raises(InterruptedTraining):
        run_stages([(0, table)], tiny_policy(), setting, file, lambda: len(steps) >= 3, steps.append)
    assert run_stages([(0, table)], again, setting, file, on_step=steps.append) == metrics
    assert len(steps) == 8  # 5 passes over 3 pairs, 2 a step
    assert same_bits(state(again), state(straight))


@pytest.mark.slow  # TRL takes seconds to import
def test_loss_and_gradients_are_those_of_trl(tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    policy, before = tiny_policy(1), tiny_policy(2)
    policy.save(tmp_path / "policy")
    before.save(tmp_path / "before")
    stage = Dpo(table_of(tmp_path / "rows.jsonl"), before, recipe())
    stage.check(lambda: False)
    reference = stage.reference()
    stage.policy = policy
    metrics = stage.accumulate(0, reference)

    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    rows = [
        {
            "prompt": said("user", row["question"]),
            **{key: said("assistant", row[key]) for key in ("chosen", "rejected")},
        }
        for row in ROWS
    ]
    options: dict[str, Any] = {"bf16": False, "gradient_checkpointing": False, "use_cpu": True, "report_to": "none"}
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tmp_path / "policy"),
        ref_model=AutoModelForCausalLM.from_pretrained(tmp_path / "before"),
        args=DPOConfig(output_dir=str(tmp_path / "trl"), beta=0.5, per_device_train_batch_size=3, **options),
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
    )
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    loss.backward()
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
    theirs = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
    for name, parameter in policy.model.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, theirs[name], atol=1e-5), name
