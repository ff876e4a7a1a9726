"""Stages: what is learnt of an example, from where, that it is learnt, and that a stage goes on where it was left."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from perilune.data.examples import Shuffled, Turn, conversation, read_examples
from perilune.errors import InvalidInputError, NotFoundError, RecipeError
from perilune.images.rendering import RenderTable
from perilune.recipe import Recipe, SftStage, WarmupStage
from perilune.tasks import counting
from services.trainer.learner import InterruptedTraining
from services.trainer.optimization import learning_rate, stage_learning_rate
from services.trainer.policy.model import Policy
from services.trainer.session import Session
from services.trainer.stages import __main__ as command
from services.trainer.stages import make_stage
from services.trainer.stages.progress import ProgressFile
from services.trainer.stages.runner import StageStep, run_stages
from services.trainer.stages.sft import Sft
from services.trainer.stages.supervised import accumulate_nll, tokens_of
from services.trainer.stages.warmup import trace
from tests.unit.trainer.messages import batch
from tests.unit.trainer.models import plain_logprobs, recipe, same_bits, state, tiny_policy

WARMUP = {"type": "warmup", "task": "search", "num_steps": 12, "batch_size": 4, "learning_rate": 1e-2}


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sft(path: Path, **keys: Any) -> SftStage:
    return SftStage.model_validate({"type": "sft", "path": str(path), **keys})


def run(table: Recipe, policy: Policy, **arguments: Any) -> dict[str, float]:
    return run_stages(table.stages_at("before"), policy, table, **arguments)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


# --- Examples -----------------------------------------------------------------------------------------------------


def test_only_responses_and_their_ends_are_learnt() -> None:
    policy = tiny_policy()
    ((one,),) = tokens_of(policy, [(Turn([user("which two of")], "answer: none"),)])
    words = policy.tokenizer.convert_ids_to_tokens(one.tokens.tolist())
    assert words == ["<bos>", "which", "two", "of", "answer:", "none", "<eos>"]
    assert one.learnt.tolist() == [False] * 4 + [True] * 3


CHAT = (
    "{% for m in messages %}{% if m.role == 'user' %}which {{ m.content }} {% else %}of {{ m.content }}<eos>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}of {% endif %}"
)


def test_a_conversation_is_one_sequence_in_which_all_that_the_assistant_says_is_learnt() -> None:
    policy = tiny_policy()
    policy.tokenizer.chat_template = CHAT
    talk = [user("two"), assistant("none"), user("answer:"), assistant("yes none"), user("low")]
    ((one,),) = tokens_of(policy, [conversation(talk, "here", "messages")])
    words = policy.tokenizer.convert_ids_to_tokens(one.tokens.tolist())
    assert words == "which two of none <eos> which answer: of yes none <eos>".split()
    learnt = [word for word, is_learnt in zip(words, one.learnt, strict=True) if is_learnt]
    assert learnt == "none <eos> yes none <eos>".split()


def test_a_template_that_rewrites_earlier_turns_makes_a_sequence_of_each_response() -> None:
    policy = tiny_policy()
    policy.tokenizer.chat_template = CHAT.replace("{{ m.content }}<eos>", "<eos>")  # forgets what it said
    talk = [user("two"), assistant("none"), user("answer:"), assistant("yes")]
    (parts,) = tokens_of(policy, [conversation(talk, "here", "messages")])
    words = [" ".join(policy.tokenizer.convert_ids_to_tokens(part.tokens.tolist())) for part in parts]
    assert words == ["which two of none <eos>", "which two of <eos> which answer: of yes <eos>"]
    assert [part.learnt.sum() for part in parts] == [2, 2]


def test_the_loss_is_the_mean_over_all_learnt_tokens() -> None:
    policy = tiny_policy()
    examples = [(Turn([user("which two")], "none"),), (Turn([user("of")], "answer: yes none"),)]
    parts = [part for each in tokens_of(policy, examples) for part in each]
    found = accumulate_nll(policy, parts, max_tokens=4)  # a row each
    logprobs = plain_logprobs(policy, [part.tokens for part in parts])
    wanted = torch.cat([each[torch.from_numpy(part.learnt[1:])] for each, part in zip(logprobs, parts, strict=True)])
    assert len(wanted) == 2 + 4
    assert found == pytest.approx(-wanted.mean().item(), abs=1e-5)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1], ":1 is no JSON object"),
        ({"question": "a"}, ":1 has no 'response': a row has 'messages', or 'question' and 'response'"),
        ({"question": "a", "response": None}, ":1: 'response' must be text, and is null"),
        ({"question": 5, "response": "b"}, ":1: 'question' must be text, and is the number 5"),
        ({"question": [{"role": "user"}], "response": "b"}, r":1: 'question\[0\].content' must be text"),
        ({"messages": "hi"}, ":1: 'messages' must be a list of {role, content}, and is the text 'hi'"),
        ({"messages": [user("a")]}, ":1: 'messages' has no message of the assistant after one of the user"),
        ({"messages": [assistant("a"), user("b")]}, ":1: 'messages' has no message of the assistant after one"),
        ({"messages": [user("a"), assistant("b"), assistant("c")]}, r":1: 'messages\[2\]' follows another message"),
        ({"messages": [{"role": "human", "content": "a"}]}, r"'messages\[0\].role' is the text 'human', and no role"),
    ],
)
def test_what_is_no_example_is_named_by_file_line_and_key(tmp_path: Path, row: Any, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"rows\.jsonl.*{expected}"):
        read_examples(sft(written(tmp_path / "rows.jsonl", [row])))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"question": "a", "question": "b", "response": "c"}', ":1 is no JSON: the key 'question' occurs twice"),
        (b'{"question": "a", "response": "b"}\n{"question": "\xff", "response": "b"}', ":2 is no UTF-8 text"),
        (b'{"question": "a", "response": "\\ud800"}', r":1: 'response' has .* lone surrogate U\+D800"),
        (b"\x1f\x8b123", "is compressed by gzip: unpack it first"),
        (b"\n\n", "there are no examples in .*rows.jsonl"),
    ],
)
def test_what_is_no_text_of_json_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(InvalidInputError, match=expected):
        read_examples(sft(tmp_path / "rows.jsonl"))
    with pytest.raises(NotFoundError, match=r"no\.jsonl"):
        read_examples(sft(tmp_path / "no.jsonl"))


def test_rows_may_have_other_keys_and_lie_in_several_files(tmp_path: Path) -> None:
    rows = [{"data": {"ask": "a\u2028b"}, "say": "c\x85d"}, {"talk": [user("e"), assistant("f")]}]
    paths = [written(tmp_path / f"{number}.jsonl", [row]) for number, row in enumerate(rows)]
    table = sft(paths[0], question="data.ask", response="say", messages="talk")
    examples = read_examples(table.model_copy(update={"path": list(map(str, paths))}))
    assert examples == [(Turn([user("a\u2028b")], "c\x85d"),), (Turn([user("e")], "f"),)]


def test_all_examples_are_seen_every_epoch_in_a_new_order_from_any_place_on() -> None:
    examples = [(Turn([user(str(number))], "yes"),) for number in range(8)]
    straight = Shuffled(examples, seed=0)
    numbers = [straight[number] for number in range(24)]
    assert sorted(map(str, numbers[:8])) == sorted(map(str, numbers[8:16])) == list(map(str, examples))
    assert numbers[:8] != numbers[8:16]
    late = Shuffled(examples, seed=0)
    assert [late[number] for number in range(13, 24)] == numbers[13:]


def test_all_of_a_file_is_used_unless_the_recipe_says_how_much(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", [{"question": f"{n}", "response": "yes"} for n in range(10)])
    assert len(read_examples(sft(path))) == 10
    assert [turn.prompt[0]["content"] for (turn,) in read_examples(sft(path, num_examples=2))] == ["0", "1"]


def test_traces_depend_on_the_seed_and_come_round_again() -> None:
    table = recipe(stages=[WARMUP | {"num_examples": 6, "num_steps": 3}])
    stage: Any = make_stage(table.stages[0], tiny_policy(), table)
    first, second, third = map(stage.batch, range(3))
    assert first + second[:2] == second[2:] + third
    other = table.model_copy(update={"seed": 2})
    assert first != make_stage(table.stages[0], tiny_policy(), other).batch(0)  # type: ignore[attr-defined]
    wrong = recipe(stages=[WARMUP | {"options": {"patients": 3}}])
    with pytest.raises(RecipeError, match="patients"):
        run(wrong, tiny_policy())


def test_traces_of_a_task_that_draws_and_of_drawn_text_show_images() -> None:
    drawn = WarmupStage(type="warmup", task="counting", options={"looks": 1.0})
    ((turn,),) = [trace(drawn, 1, 0)]
    assert [part["type"] for part in turn.prompt[0]["content"]] == ["image", "text"]
    assert turn.response.endswith(f"answer: {counting.problem(1, 0).answer}")
    text = WarmupStage(type="warmup", task="chains", options={"works": 1.0}, render=RenderTable(share=0.5))
    contents = [trace(text, 1, index)[0].prompt[0]["content"] for index in range(40)]
    assert {str if isinstance(each, str) else tuple(part["type"] for part in each) for each in contents} == {
        str,
        ("image",),
    }


# --- Steps --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_traces_are_learnt_and_every_step_is_reported() -> None:
    policy, steps = tiny_policy(), list[StageStep]()
    table = recipe(stages=[WARMUP | {"num_steps": 40, "batch_size": 16}])
    metrics = run(table, policy, on_step=steps.append)
    losses = [step.metrics["loss"] for step in steps]
    assert [step.step for step in steps] == list(range(1, 41))
    assert {(step.name, step.index, step.num_steps) for step in steps} == {("warmup", 0, 40)}
    assert metrics["warmup_loss"] == losses[-1] < 2.2
    assert losses[0] > 3.5  # about log(45): a new model knows nothing
    assert metrics["stage_tokens"] == sum(step.metrics["num_tokens"] for step in steps)
    assert steps[9].metrics["learning_rate"] == stage_learning_rate(1e-2, 9, 40)


def test_learning_rates_by_hand() -> None:
    table = recipe(
        learning_rate=1.0, final_learning_rate=0.5, learning_rate_warmup_iterations=2, num_iterations=5
    ).trainer
    # The ramp 1/2, 1, 1 ... times the line 1, 0.875, 0.75, 0.625, 0.5.
    assert [learning_rate(table, i) for i in range(5)] == pytest.approx([0.5, 0.875, 0.75, 0.625, 0.5])
    assert learning_rate(recipe(learning_rate=0.1).trainer, 3) == 0.1
    assert [stage_learning_rate(1.0, step, 20) for step in (0, 10)] == pytest.approx([0.5, 0.5])
    assert stage_learning_rate(1.0, 19, 20) < 0.01


def test_examples_beyond_the_context_are_refused_before_the_first_step(tmp_path: Path) -> None:
    rows = [{"question": "which two", "response": "none " * count} for count in (3, 600, 3, 510)]
    path, steps = written(tmp_path / "rows.jsonl", rows), list[StageStep]()
    said = r"2 of 4 examples of .*rows.jsonl have .* context of 512, the longest 604; the first is number 2"
    with pytest.raises(InvalidInputError, match=said):
        run(recipe(stages=[{"type": "sft", "path": str(path)}]), tiny_policy(), on_step=steps.append)
    assert not steps
    with pytest.raises(InvalidInputError, match=r"examples of step 1 have more tokens than the model's context of 8"):
        run(recipe(stages=[WARMUP]), tiny_policy(max_positions=8))


def test_a_policy_without_a_chat_template_reads_prompts_as_rollouts_do(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.tokenizer.chat_template = None
    ((one,),) = tokens_of(policy, [(Turn([user("which two")], "none"),)])
    assert policy.tokenizer.convert_ids_to_tokens(one.tokens.tolist()) == ["which", "two", "none", "<eos>"]


# --- Going on -----------------------------------------------------------------------------------------------------


def stopping_after(num_steps: int) -> tuple[Callable[[StageStep], None], Callable[[], bool]]:
    seen: list[StageStep] = []
    return seen.append, lambda: len(seen) >= num_steps


def two_stages(folder: Path) -> Recipe:
    talk = {"messages": [user("which two"), assistant("none"), user("of"), assistant("answer: yes")]}
    rows = [{"question": f"{n} {n + 1}", "response": "none " * n + "yes"} for n in range(5)]
    path = written(folder / "rows.jsonl", [*rows, talk])
    tuned = {"type": "sft", "path": str(path), "num_steps": 9, "batch_size": 4, "learning_rate": 1e-2}
    return recipe(stages=[WARMUP | {"checkpoint_every": 5}, tuned | {"checkpoint_every": 4}], num_threads=1)


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [3, 5, 12, 14, 20])
def test_stages_that_were_stopped_go_on_to_the_same_bits(tmp_path: Path, num_steps: int) -> None:
    table, straight = two_stages(tmp_path), tiny_policy()
    expected = run(table, straight)
    on_step, should_stop = stopping_after(num_steps)
    file = ProgressFile(tmp_path / "stage.pt", "start")
    with pytest.raises(InterruptedTraining):
        run(table, tiny_policy(), file=file, on_step=on_step, should_stop=should_stop)
    again, steps = tiny_policy(), list[StageStep]()
    assert run(table, again, file=file, on_step=steps.append) == expected
    assert same_bits(state(again), state(straight))
    assert len(steps) == 21 - num_steps  # stopped, and not killed: nothing is done twice


@pytest.mark.slow
def test_a_stage_whose_process_was_killed_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    table, straight = two_stages(tmp_path), tiny_policy()
    run(table, straight)

    def kill(step: StageStep) -> None:
        if (step.index, step.step) == (1, 7):
            raise KeyboardInterrupt

    file = ProgressFile(tmp_path / "stage.pt", "start")
    with pytest.raises(KeyboardInterrupt):
        run(table, tiny_policy(), file=file, on_step=kill)
    again, steps = tiny_policy(), list[StageStep]()
    run(table, again, file=file, on_step=steps.append)
    assert [(step.index, step.step) for step in steps] == [(1, number) for number in range(5, 10)]
    assert same_bits(state(again), state(straight))


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(b"no archive"), lambda file: None])
def test_progress_of_something_else_or_damaged_is_none(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    table, (on_step, should_stop) = recipe(stages=[WARMUP]), stopping_after(3)
    with pytest.raises(InterruptedTraining):
        run(table, tiny_policy(), file=ProgressFile(tmp_path / "p", "one"), on_step=on_step, should_stop=should_stop)
    spoil(tmp_path / "p")
    steps = list[StageStep]()
    run(table, tiny_policy(), file=ProgressFile(tmp_path / "p", "another"), on_step=steps.append)
    assert len(steps) == 12


@pytest.mark.slow
def test_a_stage_after_rl_makes_a_version_like_another_and_goes_on_where_it_was_left(tmp_path: Path) -> None:
    after = [WARMUP | {"when": "after", "num_steps": number} for number in (5, 4)]
    table = recipe(stages=[WARMUP, *after], num_iterations=1, num_threads=1, checkpoint_every=10)
    assert [table.evaluates_at(version) for version in range(4)] == [True] * 4
    straight = Session.open(table, tmp_path / "a", None, lambda: False)
    assert straight.stage is None
    straight.train(batch(0, straight.published.policy))
    straight.checkpoint()
    assert not straight.is_last
    straight.run_stage()
    assert straight.metrics.keys() == {"warmup_loss", "num_tokens", "train_seconds", "sent_share"}
    straight.checkpoint()
    straight.run_stage()
    straight.checkpoint()
    assert straight.is_last
    assert straight.stage is None
    assert AutoModelForCausalLM.from_pretrained(straight.model_path).num_parameters() > 0

    on_step, should_stop = stopping_after(2)
    broken = Session.open(table, tmp_path / "b", None, lambda: False)
    broken.train(batch(0, broken.published.policy))
    broken.checkpoint()
    broken._should_stop = should_stop
    with pytest.raises(InterruptedTraining):
        broken.run_stage(on_step)
    again, steps = Session.open(table, tmp_path / "b", broken.published.policy, lambda: False), list[StageStep]()
    again.run_stage(steps.append)
    assert [(step.index, step.step) for step in steps] == [(1, 3), (1, 4), (1, 5)]
    again.checkpoint()
    assert not (tmp_path / "b" / "stage.pt").exists()
    again.run_stage()
    assert again.published.policy == straight.published.policy


def test_an_adapter_is_what_a_stage_after_rl_trains(tmp_path: Path) -> None:
    adapter = {"rank": 2, "alpha": 4, "targets": ["q_proj"]}
    table = recipe(stages=[WARMUP | {"when": "after"}], num_iterations=0, num_threads=1, adapter=adapter)
    session = Session.open(table, tmp_path, None, lambda: False)
    before = state(session._learner.policy)
    session.run_stage()
    after = state(session._learner.policy)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("q_proj" in name for name in changed)
    session.checkpoint()
    again = Session.open(table, tmp_path, session.published.policy, lambda: False)
    assert again.published.policy == session.published.policy


# --- The command --------------------------------------------------------------------------------------------------

TOML = """
name = "tiny"
model.create = { task = "search", hidden_size = 16, num_layers = 1 }
prompts = { source = "task", name = "search" }
reward.graders = [{ name = "exact" }]
trainer = { num_iterations = 1, num_threads = 1 }
[[stages]]
type = "warmup"
task = "search"
num_steps = 3
batch_size = 4
"""


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["stages", *arguments])
    command.main()


def test_the_command_writes_a_model_and_says_how_it_went(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "tiny.toml").write_text(TOML)
    _main(monkeypatch, str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "model"), "--set", "stages.0.num_steps=5")
    assert "warmup step 5/5  loss " in capsys.readouterr().out
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.hidden_size == 16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "tiny.toml"]


def test_the_command_refuses_to_overwrite_and_to_do_nothing(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(TOML)
    with pytest.raises(SystemExit, match="exists already"):
        _main(monkeypatch, str(path), "--out", str(tmp_path))
    path.write_text(TOML + 'when = "after"\n')
    with pytest.raises(SystemExit, match="nothing to do"):
        _main(monkeypatch, str(path), "--out", str(tmp_path / "model"))


def test_a_stage_says_which_kind_it_is() -> None:
    table = recipe(stages=[{"type": "sft", "path": "a.jsonl"}])
    assert isinstance(make_stage(table.stages[0], tiny_policy(), table), Sft)
