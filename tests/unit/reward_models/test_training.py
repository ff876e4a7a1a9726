"""Value heads and judges, trained for seconds: losses by hand, and that they learn."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from perilune.data.examples import Example
from perilune.errors import InvalidInputError, NotFoundError
from perilune.grading.labelled_answers import LabelledAnswer, agreement
from services.trainer.policy.logprobs import token_logprobs
from services.trainer.policy.model import Policy
from services.trainer.policy.packing import pack_rows
from services.trainer.reward_models import classic
from services.trainer.reward_models.classic import RewardModel
from services.trainer.reward_models.commands import split
from services.trainer.reward_models.judges import judge_examples
from services.trainer.reward_models.plan import Plan
from services.trainer.reward_models.small import SmallSize, digit_tokenizer, small_policy
from services.trainer.reward_models.training import train_classic, train_judge, triple_of
from services.trainer.stages.supervised import tokens_of

pytestmark = pytest.mark.slow  # trains, or starts services and processes

TINY = SmallSize(hidden_size=64, intermediate_size=128, num_layers=2, num_heads=2, max_positions=128)


def digit_rows(num_rows: int, seed: int = 0) -> list[LabelledAnswer]:
    """A response is right if it ends in the digit of the reference: easy for either kind."""
    rng, rows = Random(seed), []
    for _ in range(num_rows):
        reference, other = rng.sample("0123456789", 2)
        correct = rng.random() < 0.5
        last = reference if correct else other
        reasoning = f"{last} {'is' if correct else 'not'} {reference}"
        response = f"{rng.randint(0, 9)} so {last}"
        rows.append(LabelledAnswer(reference=reference, response=response, correct=correct, reasoning=reasoning))
    return rows


def tiny_policy(seed: int = 0) -> Policy:
    words = "reference\nresponse\nquestion reference response answer verdict\nso is not "
    texts = [words + '{"id": "correct", "verdict": "incorrect"} so']
    return small_policy(texts, seed, TINY)


def silent(step: int, loss: float) -> None:
    assert math.isfinite(loss)


def test_the_loss_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3), math.log(3)])  # probabilities 1/2, 3/4, 3/4
    labels = torch.tensor([1.0, 1.0, 0.0])
    expected = math.log(2) - math.log(3 / 4) - math.log(1 / 4)
    assert classic.loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_an_untrained_head_knows_nothing_and_the_first_loss_is_log_2() -> None:
    model, losses = RewardModel(tiny_policy(), 64), []
    rows = digit_rows(32)
    assert model.probabilities([triple_of(row) for row in rows]) == [0.5] * 32
    train_classic(model, rows, Plan(num_passes=1, learning_rate=1e-3), lambda step, loss: losses.append(loss))
    assert losses == [pytest.approx(math.log(2), rel=1e-6)]


def test_the_value_is_read_from_the_last_token_whatever_else_is_in_the_row() -> None:
    model = RewardModel(tiny_policy(), 64)
    torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    triples = [("", "1", "2 so 1"), ("why", "12345", "so 12345 is not 54321"), ("", "7", "7")]
    together = model.probabilities(triples)
    assert together == pytest.approx([model.probabilities([triple])[0] for triple in triples], abs=1e-6)
    assert len({round(value, 6) for value in together}) == 3
    model.policy.model.set_attn_implementation("eager")
    (tokens,) = model.encode(triples[1:2])
    hidden = model.policy.model.base_model(torch.from_numpy(tokens[None, :-1])).last_hidden_state[0, -1]
    assert together[1] == pytest.approx(torch.sigmoid(model.head(hidden)).item(), abs=1e-6)


def test_what_is_too_long_loses_the_beginning_of_the_response() -> None:
    model = RewardModel(tiny_policy(), 16)
    (tokens,) = model.encode([("", "1", "2 " * 20 + "so 1")])
    assert len(tokens) == 17  # and one that is no input
    assert model.policy.tokenizer.decode(tokens[1:-1]).endswith("2 so 1")
    (tokens,) = model.encode([("why " * 30, "1", "so 1")])
    assert len(tokens) <= 17
    assert "reference 1\nresponse so 1" in model.policy.tokenizer.decode(tokens[1:-1]).replace("<unk>", "")


def test_a_value_head_learns_and_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    model, heldout = RewardModel(tiny_policy(), 64), digit_rows(200, seed=1)
    triples, labels = [triple_of(row) for row in heldout], [row.correct for row in heldout]
    before = agreement(model.probabilities(triples), labels)
    train_classic(model, digit_rows(1500), Plan(num_passes=3, batch_size=32, learning_rate=4e-3), silent)
    values = model.probabilities(triples)
    after = agreement(values, labels)
    assert after.accuracy > 0.9 > before.accuracy
    assert after.brier < 0.1 < before.brier
    model.save(tmp_path / "model", {"num_rows": 2000})
    loaded = RewardModel.load(tmp_path / "model")
    assert loaded.probabilities(triples) == pytest.approx(values, abs=1e-6)
    assert loaded.max_tokens == 64


def test_a_folder_without_a_value_head_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="holds no reward model"):
        RewardModel.load(tmp_path)
    RewardModel(tiny_policy(), 64).save(tmp_path / "model", {})
    (tmp_path / "model" / classic.HEAD).write_bytes(b"no tensors")
    with pytest.raises(InvalidInputError, match="no value head of this model"):
        RewardModel.load(tmp_path / "model")


def test_a_judge_learns_its_replies_and_to_draw_the_verdict_from_the_reasoning() -> None:
    policy, heldout = tiny_policy(), judge_examples(digit_rows(50, seed=1), "bare", seed=1)
    loss_before, _ = reads(policy, heldout)
    train_judge(policy, judge_examples(digit_rows(3000), "bare", seed=0), Plan(1, 16, 4e-3), silent)
    loss_after, share_of_verdicts = reads(policy, heldout)
    assert loss_before > 3
    assert loss_after < 0.3
    assert share_of_verdicts > 0.9


@torch.no_grad()
def reads(policy: Policy, examples: list[Example]) -> tuple[float, float]:
    """Nats a reply's token, and how often the verdict's word is the likeliest where it belongs."""
    sequences = [sequence for parts in tokens_of(policy, examples) for sequence in parts]
    tokens, learnt = [each.tokens for each in sequences], [each.learnt for each in sequences]
    words = policy.tokenizer.convert_tokens_to_ids(["correct", "incorrect"])
    logprobs, num_right = [], 0
    for row in pack_rows(tokens, learnt, 4096):
        found = token_logprobs(policy.model, row)
        logprobs += found.tolist()
        num_right += int((found[torch.isin(row.targets_S, torch.tensor(words))] > math.log(0.5)).sum())
    return -float(np.mean(logprobs)), num_right / len(examples)


def test_a_judge_needs_reasoning_to_learn_from() -> None:
    with pytest.raises(InvalidInputError, match="labelled answer 2 has no `reasoning`"):
        judge_examples([*digit_rows(1), LabelledAnswer(reference="1", response="1", correct=True)], "bare", 0)


def test_the_tokens_of_the_small_tokenizer_are_the_text() -> None:
    text = 'What is 12+345?\n{"id": "12"}  so'
    tokenizer = digit_tokenizer([text])
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert [tokenizer.decode([token]) for token in ids[:8]] == ["What", " is", " ", "1", "2", "+", "3", "4"]
    assert tokenizer("9 never")["input_ids"][-1] == tokenizer.unk_token_id


def test_the_same_seed_makes_the_same_model_and_another_another() -> None:
    weights = [next(tiny_policy(seed).model.parameters()).detach().numpy() for seed in (0, 0, 1)]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_all_answers_to_a_question_are_on_one_side() -> None:
    rows = [LabelledAnswer(question=f"q{i // 4}", reference="1", response=str(i), correct=True) for i in range(400)]
    train, heldout = split(rows)
    assert len(train) + len(heldout) == 400
    assert 10 < len(heldout) < 80
    assert not {row.question for row in train} & {row.question for row in heldout}
    with pytest.raises(InvalidInputError, match="too few to hold some out"):
        split(rows[:1])
