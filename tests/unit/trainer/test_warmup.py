"""Supervised fine-tuning: what is learnt of an example, from where, and that it is learnt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perilune.errors import InvalidInputError, NotFoundError, RecipeError
from perilune.recipe import WarmupTable
from services.trainer.learner import InterruptedTraining
from services.trainer.optimization import learning_rate, warmup_learning_rate
from services.trainer.stages.warmup import batches, read_examples, tokenize, warm_up
from tests.unit.trainer.models import recipe, tiny_policy


def test_only_the_response_and_its_end_are_learnt() -> None:
    policy = tiny_policy()
    (tokens,), (learnt,) = tokenize(policy, [([{"role": "user", "content": "which two of"}], "answer: none")])
    words = policy.tokenizer.convert_ids_to_tokens(tokens.tolist())
    assert words == ["<bos>", "which", "two", "of", "answer:", "none", "<eos>"]
    assert learnt.tolist() == [False] * 4 + [True] * 3


def test_traces_are_learnt() -> None:
    policy = tiny_policy()
    table = {"task": "search", "num_steps": 40, "batch_size": 16, "learning_rate": 1e-2}
    losses: list[float] = []
    last = warm_up(policy, recipe(warmup=table), on_step=lambda step, loss: losses.append(loss))
    assert len(losses) == 40
    assert last == losses[-1]
    assert losses[0] > 3.5  # about log(45): a new model knows nothing
    assert losses[-1] < 2.2


def test_examples_depend_on_the_seed_and_come_round_again() -> None:
    table = WarmupTable(task="search", num_examples=6, batch_size=4, num_steps=3)
    first, second, third = batches(table, seed=1)
    assert [first, second, third] == list(batches(table, seed=1))
    assert first + second[:2] == second[2:] + third
    assert first != next(batches(table, seed=2))


def test_a_file_is_seen_whole_every_epoch_in_a_new_order(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps({"question": str(n), "response": f"{n} yes"}) + "\n" for n in range(8)))
    epochs = list(batches(WarmupTable(path=str(path), batch_size=8, num_steps=2), seed=0))
    assert sorted(answer for _, answer in epochs[0]) == sorted(answer for _, answer in epochs[1])
    assert epochs[0] != epochs[1]


def test_bad_examples_are_named_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text('{"question": "a", "response": "b"}\n{"question": "a"}\n')
    with pytest.raises(InvalidInputError, match=r"traces.jsonl:2: expected .*response"):
        read_examples(path)
    with pytest.raises(NotFoundError, match=r"no\.jsonl"):
        read_examples(tmp_path / "no.jsonl")
    with pytest.raises(RecipeError, match="patients"):
        next(batches(WarmupTable(task="search", options={"patients": 3}), seed=0))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[1]", ":1 is no JSON object"),
        ('{"question": "a", "question": "b", "response": "c"}', ":1 is no JSON: the key 'question' occurs twice"),
        ('{"question": "a", "response": null}', ":1: 'response' must be text, and is null"),
        ('{"question": 5, "response": "b"}', ":1: 'question' must be text, and is the number 5"),
        ('{"question": "a", "response": "\\ud800"}', r":1: 'response' has .* lone surrogate U\+D800"),
        ('{"question": [{"role": "user"}], "response": "b"}', r":1: 'question\[0\].content' must be text"),
    ],
)
def test_what_is_no_example_is_named_by_file_line_and_key(tmp_path: Path, line: str, expected: str) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text(line)
    with pytest.raises(InvalidInputError, match=rf"traces\.jsonl{expected}"):
        read_examples(path)


def test_examples_end_with_line_feeds_alone(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text('\ufeff{"question": "a\u2028b", "response": "c\x85d"}\r\n', encoding="utf-8")
    assert read_examples(path) == [([{"role": "user", "content": "a\u2028b"}], "c\x85d")]


def test_it_stops_between_steps() -> None:
    with pytest.raises(InterruptedTraining):
        warm_up(tiny_policy(), recipe(warmup={"task": "search"}), should_stop=lambda: True)


def test_learning_rates_by_hand() -> None:
    table = recipe(
        learning_rate=1.0, final_learning_rate=0.5, learning_rate_warmup_iterations=2, num_iterations=5
    ).trainer
    # The ramp 1/2, 1, 1 ... times the line 1, 0.875, 0.75, 0.625, 0.5.
    assert [learning_rate(table, i) for i in range(5)] == pytest.approx([0.5, 0.875, 0.75, 0.625, 0.5])
    assert learning_rate(recipe(learning_rate=0.1).trainer, 3) == 0.1
    assert [warmup_learning_rate(1.0, step, 20) for step in (0, 10)] == pytest.approx([0.5, 0.5])
    assert warmup_learning_rate(1.0, 19, 20) < 0.01


def test_all_of_a_file_is_used_unless_the_recipe_says_how_much(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps({"question": f"{n}", "response": "yes"}) + "\n" for n in range(20_010)))
    (everything,) = batches(WarmupTable(path=str(path), batch_size=20_010, num_steps=1), seed=0)
    assert len({question[0]["content"] for question, _ in everything}) == 20_010
    (some,) = batches(WarmupTable(path=str(path), batch_size=20, num_steps=1, num_examples=5), seed=0)
    assert {question[0]["content"] for question, _ in some} == set("01234")


def test_examples_beyond_the_context_are_refused_before_the_first_step(tmp_path: Path) -> None:
    path, steps = tmp_path / "traces.jsonl", []
    rows = [{"question": "which two", "response": "none " * count} for count in (3, 600, 3, 510)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = r"2 of 4 examples of warmup.path .* context of 512, the longest 604; the first is number 2"
    with pytest.raises(InvalidInputError, match=said):
        warm_up(tiny_policy(), recipe(warmup={"path": str(path)}), on_step=lambda *step: steps.append(step))
    assert not steps
    with pytest.raises(InvalidInputError, match=r"of a warm-up's step have more tokens than the model's context of 8"):
        warm_up(tiny_policy(max_positions=8), recipe(warmup={"task": "search"}))


def test_a_warm_up_without_a_chat_template_reads_prompts_as_rollouts_do(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.tokenizer.chat_template = None
    (tokens,), _ = tokenize(policy, [([{"role": "user", "content": "which two"}], "none")])
    assert policy.tokenizer.convert_ids_to_tokens(tokens.tolist()) == ["which", "two", "none", "<eos>"]
    path = tmp_path / "traces.jsonl"
    path.write_text('{"question": "which two", "response": "none"}\n')
    loss = warm_up(policy, recipe(warmup={"path": str(path), "num_steps": 2, "batch_size": 2}))
    assert loss > 0
