import json
import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from perilune.errors import InvalidInputError
from perilune.recipe import (
    CalculatorEnvironment,
    FilePrompts,
    GuessEnvironment,
    HuggingFacePrompts,
    JsonlPrompts,
    ReasoningGymPrompts,
    SftStage,
    TaskPrompts,
    WarmupStage,
)
from services.master.prompts import PromptSet, open_prompts
from services.master.prompts.examples import notes_on_examples
from services.master.prompts.prompt import make_prompt
from services.rollout.environments import environment_of

LAST = '{"question": "the last", "answer": "1"}'


def write(path: Path, rows: list[object]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def opened(tmp_path: Path, text: str | bytes, name: str = "p.jsonl", **keys: Any) -> PromptSet:
    """The set of one file whose last row is held out."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_prompts(FilePrompts(source="file", path=[str(path)], **({"num_heldout": 1} | keys)), seed=0)


def of_line(tmp_path: Path, line: str, **keys: Any) -> tuple[list[tuple[str, str]], str]:
    """The messages and the reference of one line."""
    prompt = opened(tmp_path, f"{line}\n{LAST}", **keys).train(0)
    return [(message.role, message.content) for message in prompt.messages], prompt.reference


def questions(prompts: PromptSet) -> list[str]:
    return [prompts.train(index).messages[0].content for index in range(prompts.num_train)]


def test_a_task_is_endless_and_holds_problems_out() -> None:
    prompts = open_prompts(TaskPrompts(source="task", name="search", num_train=300, num_heldout=50), seed=4)
    train = {prompts.train(index).id for index in range(300)}
    heldout = {prompts.heldout(index).id for index in range(50)}
    assert not train & heldout
    assert prompts.train(7) == open_prompts(TaskPrompts(source="task", name="search"), seed=4).train(7)


def test_a_tasks_options_shape_its_problems() -> None:
    table = TaskPrompts(source="task", name="search", options={"num_numbers": 3})
    assert open_prompts(table, seed=0).train(0).messages[0].content == "which two of 6 8 12 make 18 ?"
    for options, expected in (({"num_number": 3}, "it takes num_numbers"), ({"num_numbers": 50}, "must be 2 to 7")):
        with pytest.raises(InvalidInputError, match=expected):
            open_prompts(TaskPrompts(source="task", name="search", options=options), seed=0)


def test_jsonl_rows_become_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"q": f"{i}+1?", "a": i + 1, "level": i} for i in range(5)])
    table = JsonlPrompts(
        source="jsonl",
        path=path,
        question="q",
        answer="a",
        labels=["level"],
        num_heldout=2,
        template="Compute {question}",
        system="Be brief.",
    )
    prompts = open_prompts(table, seed=0)
    assert (prompts.num_train, prompts.num_heldout) == (3, 2)
    prompt = prompts.train(1)
    assert [(m.role, m.content) for m in prompt.messages] == [("system", "Be brief."), ("user", "Compute 1+1?")]
    assert (prompt.reference, prompt.labels["level"]) == ("2", "1")


def test_a_conversation_is_taken_as_it_is(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    row = json.dumps({"question": turns, "answer": "x"})
    assert of_line(tmp_path, row)[0] == [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert of_line(tmp_path, row, system="s")[0][:2] == [("system", "s"), ("user", "a")]
    own = json.dumps({"question": [{"role": "system", "content": "own"}, *turns], "answer": "x"})
    assert of_line(tmp_path, own, system="s")[0][:2] == [("system", "own"), ("user", "a")]


@pytest.mark.parametrize("number", ["1.0", "1", "-0", "1e400", "0.1000", "123456789012345678901234567890.10"])
def test_a_number_is_taken_as_it_is_written(tmp_path: Path, number: str) -> None:
    assert of_line(tmp_path, f'{{"question": "a", "answer": {number}}}')[1] == number


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"question": "a", "anwser": "b"}', "line 1 has no key 'answer'; it has 'anwser'"),
        ("nonsense", "line 1 is no JSON"),
        ("[" * 100_000, "line 1 is nested too deeply"),
        ("[1, 2]", "line 1 is no JSON object"),
        ('{"question": "a", "question": "b", "answer": "c"}', "line 1 is no JSON: the key 'question' occurs twice"),
        ('{"question": 5, "answer": "b"}', "line 1: 'question' is neither text nor"),
        ('{"question": null, "answer": "b"}', "line 1: 'question' is neither .* it is null"),
        ('{"question": "\\t", "answer": "b"}', "line 1: 'question' is empty"),
        ('{"question": "a", "answer": null}', "line 1: 'answer' must be text or a number, and is null"),
        ('{"question": "a", "answer": [1.50]}', r"'answer' .* a list: \[1.50\]"),
        ('{"question": "a", "answer": {"b": 1}}', "'answer' .* an object with 'b'"),
        ('{"question": "a", "answer": true}', "'answer' .* is true"),
        ('{"question": "a", "answer": NaN}', "'answer' .* no finite number"),
        ('{"question": "a", "answer": " "}', "'answer' is empty"),
        ('{"question": "a\\ud800", "answer": "b"}', r"line 1: 'question' has .* lone surrogate U\+D800"),
        ('{"question": ["a"], "answer": "b"}', r"'question\[0\]' must have a role and a content"),
        ('{"question": [{"role": "user"}], "answer": "b"}', r"'question\[0\].content' must be text, and is null"),
        ('{"question": [{"role": "human", "content": "a"}], "answer": "b"}', "'human', and no role: write 'user'"),
        ('{"question": [{"role": "system", "content": "a"}], "answer": "b"}', "no message of the user"),
        (
            '{"question": [{"role": "user", "content": "a", "tool_calls": [1]}], "answer": "b"}',
            r"'question\[0\].tool_calls' would be lost",
        ),
    ],
)
def test_what_is_no_prompt_is_named_or_skipped_and_counted(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"p\.jsonl.*{expected}"):
        of_line(tmp_path, line)
    prompts = opened(tmp_path, f'{line}\n{{"question": "good", "answer": "1"}}\n{LAST}', skip_invalid=True)
    assert questions(prompts) == ["good"]
    assert "1 of 3 rows skipped" in prompts.notes[0]


NAMED = {"environment": "env", "environments": ["guess", "calculator"]}


@pytest.mark.parametrize(
    ("value", "environment"),
    [
        ("null", None),
        ('""', None),
        ('"none"', ""),
        ('"guess"', GuessEnvironment(type="guess")),
        ('{"type": "guess", "guesses": 5, "role": null}', GuessEnvironment(type="guess", guesses=5)),
        ('"{\\"type\\": \\"guess\\", \\"max_turns\\": 2}"', GuessEnvironment(type="guess", max_turns=2)),
    ],
)
def test_a_row_names_its_environment(tmp_path: Path, value: str, environment: Any) -> None:
    line = f'{{"question": "a", "answer": "1", "env": {value}}}'
    prompt = opened(tmp_path, f'{line}\n{LAST[:-1]}, "env": null}}', **NAMED).train(0)
    default = CalculatorEnvironment(type="calculator")
    assert environment_of(prompt, default) == {None: default, "": None}.get(environment, environment)
    assert prompt.id != make_prompt("a", "1").id or not prompt.HasField("environment_json")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"gues"', "line 1: 'env' is of the type 'gues', which is none of prompts.environments: guess, calculator"),
        ('"sandbox"', "line 1: 'env' is of the type 'sandbox', which is none of"),
        ("{}", "line 1: 'env' is of the type None, which is none of"),
        ("7", "line 1: 'env' is neither an environment's name nor its table: the number 7"),
        ("[1]", "line 1: 'env' is neither an environment's name"),
        (
            '{"type": "guess", "gueses": 5}',
            r"line 1: 'env.gueses': no such key; known are type, max_turns, guesses, role",
        ),
        ('{"type": "guess", "guesses": -5}', r"line 1: 'env.guesses': Input should be greater than 0 \(got -5\)"),
        ('"{nonsense"', "line 1: 'env' is no JSON"),
    ],
)
def test_an_environment_that_a_row_may_not_name_is_named_with_its_row(
    tmp_path: Path, value: str, expected: str
) -> None:
    line = f'{{"question": "a", "answer": "b", "env": {value}}}'
    with pytest.raises(InvalidInputError, match=rf"p\.jsonl.*{expected}"):
        of_line(tmp_path, line, **NAMED)


def test_a_row_without_the_key_of_its_environment_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"line 1 has no key 'env'; .* set prompts.environment to"):
        of_line(tmp_path, '{"question": "a", "answer": "b"}', **NAMED)


def test_a_template_is_for_text(tmp_path: Path) -> None:
    row = '{"question": [{"role": "user", "content": "a"}], "answer": "b"}'
    with pytest.raises(InvalidInputError, match=r"line 1: 'question' is a list of messages, and prompts\.template"):
        of_line(tmp_path, row, template="Think. {question}")


def test_lines_end_with_line_feeds_alone(tmp_path: Path) -> None:
    text = '\ufeff{"question": "a\u2028b\u2029c\x85d", "answer": "1"}\r\n\r\n \n' + LAST
    assert questions(opened(tmp_path, text)) == ["a\u2028b\u2029c\x85d"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "has no prompts"),
        (LAST.encode(), "1 prompts, of which 1 are to be held out: none are left .* less than 1"),
        (b"\x1f\x8b\x08", "is compressed by gzip"),
        (b"\xff\xfe{", "is UTF-16 text"),
        (b'{"question": "\xff"}', "line 1 is no UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        opened(tmp_path, content)


def test_a_path_that_cannot_be_read_is_named_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    paths = {tmp_path / "nowhere.jsonl": "No such file", tmp_path: "directory", "/dev/zero": "no regular file"}
    paths |= {Path("/proc/self/mem"): "Input/output error"}
    for path, expected in (paths | {tmp_path / "pipe": "no regular file"}).items():
        with pytest.raises(InvalidInputError, match=f"{path}.*{expected}"):
            open_prompts(JsonlPrompts(source="jsonl", path=str(path)), seed=0)


def test_a_question_that_is_held_out_is_not_trained_on(tmp_path: Path) -> None:
    """Whatever its answer, and however it is spaced."""
    rows = [{"question": q, "answer": str(number)} for number, q in enumerate(["a b", "b", "c", " a\n b"])]
    path = write(tmp_path / "p.jsonl", rows)
    prompts = open_prompts(JsonlPrompts(source="jsonl", path=path, num_heldout=1), seed=0)
    assert questions(prompts) == ["b", "c"]
    assert prompts.notes == [f"{path}: 1 of 3 training prompts are left out, for their questions are held out"]
    heldout = write(tmp_path / "h.jsonl", [{"question": q, "answer": "x"} for q in ("c", "d")])
    prompts = open_prompts(JsonlPrompts(source="jsonl", path=path, heldout_path=heldout), seed=0)
    assert questions(prompts) == ["a b", "b", " a\n b"]
    with pytest.raises(InvalidInputError, match=r"all 4 training prompts .* none are left"):
        open_prompts(JsonlPrompts(source="jsonl", path=path, heldout_path=path), seed=0)


def test_a_file_smaller_than_what_is_held_out_says_what_to_set(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"question": str(i), "answer": "1"} for i in range(60)])
    with pytest.raises(InvalidInputError, match=r"60 prompts, of which 100 .* prompts\.num_heldout to less than 60"):
        open_prompts(JsonlPrompts(source="jsonl", path=path), seed=0)


def test_a_stage_that_teaches_what_is_held_out_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"question": f"q {i}", "answer": "1"} for i in range(6)])
    prompts = open_prompts(JsonlPrompts(source="jsonl", path=path, num_heldout=2), seed=0)
    asked = ["q 0", [{"role": "user", "content": "q  5"}]]
    talk = [("user", "q 4"), ("assistant", "1"), ("user", "why"), ("assistant", "so")]
    rows = [{"question": question, "response": "1"} for question in asked]
    rows.append({"messages": [{"role": role, "content": content} for role, content in talk]})
    traces = write(tmp_path / "w.jsonl", rows)
    warmup = WarmupStage(type="warmup", task="search")
    (note,) = notes_on_examples([warmup, SftStage(type="sft", path=[traces])], prompts)
    assert "w.jsonl: 2 of 3 examples answer questions that are held out, the first is number 2" in note
    others = write(tmp_path / "o.jsonl", [{"question": "q 0", "response": "1"}])
    for stages in ([], [warmup], [SftStage(type="sft", path=[others])], [SftStage(type="sft", path=["nowhere.jsonl"])]):
        assert notes_on_examples(stages, prompts) == []


def verl_row(number: int) -> dict[str, Any]:
    """As verl's own preparation of data writes it."""
    return {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": f"question {number}"}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": f"{number}"},
        "extra_info": {"split": "train", "index": number, "level": number / 4},
    }


def test_verls_parquet_files_open_as_they_are(tmp_path: Path) -> None:
    for part in range(2):
        rows = [verl_row(3 * part + number) for number in range(3)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"part-{part}.parquet")
    table = FilePrompts(
        source="file",
        path=[str(tmp_path / "*.parquet")],
        question="prompt",
        answer="reward_model.ground_truth",
        labels=["data_source", "extra_info.level"],
        num_heldout=2,
    )
    prompts = open_prompts(table, seed=0)
    assert (prompts.num_train, prompts.num_heldout, prompts.heldout(1).reference) == (4, 2, "5")
    assert prompts.train(3).messages[0].content == "question 3"
    assert prompts.train(3).labels == {"data_source": "openai/gsm8k", "extra_info.level": "0.75"}
    with pytest.raises(
        InvalidInputError, match=r"row 0, 'reward_model' has no key 'ground_truh'; it has 'ground_truth'"
    ):
        open_prompts(table.model_copy(update={"answer": "reward_model.ground_truh"}), seed=0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", 'question,answer\n"a,\nb",007\nc,1\n'),
        ("p.tsv", 'answer\tquestion\n007\t"a,\nb"\n1\tc\n'),
        ("p.json", '[{"question": "a,\\nb", "answer": "007"}, {"question": "c", "answer": "1"}]'),
        ("p.json", '{"question": "a,\\nb", "answer": "007"}\n{"question": "c", "answer": "1"}'),
    ],
)
def test_files_open_by_their_suffix(tmp_path: Path, name: str, text: str) -> None:
    prompt = opened(tmp_path, text, name).train(0)
    assert (prompt.messages[0].content, prompt.reference) == ("a,\nb", "007")
    assert opened(tmp_path, text, "p.txt", format=name.partition(".")[2]).train(0) == prompt


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("p.csv", "question,answer\na,1,2\n", "line 2 has 3 fields, and the first line names 2"),
        ("p.csv", 'question,answer\na,"1\n', "line 2: unexpected end"),
        ("p.csv", "question,question\na,1\n", "two columns of one name"),
        ("p.json", '[{"question": "a", "answer": "1"}, 2]', "row 1 is no JSON object"),
        ("p.json", '[{"question": "a" "answer": "1"}]', "is no JSON.*column 19"),
        ("p.parquet", "nothing", "p.parquet"),
        ("p.dat", "nothing", r"ends in none of .*; set `format`"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, name: str, text: str, expected: str) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        opened(tmp_path, text, name)


def saved(tmp_path: Path, split: str | None = None) -> HuggingFacePrompts:
    rows = {"question": [f"q{i}" for i in range(6)], "answer": [str(i) for i in range(6)]}
    named = datasets.NamedSplit(split) if split else None
    datasets.Dataset.from_dict(rows, split=named).save_to_disk(str(tmp_path / "saved"))
    return HuggingFacePrompts(source="huggingface", dataset=str(tmp_path / "saved"), num_heldout=2)


def test_a_saved_hugging_face_dataset_opens(tmp_path: Path) -> None:
    prompts = open_prompts(saved(tmp_path), seed=0)
    assert (prompts.num_train, prompts.train(3).reference, prompts.heldout(0).reference) == (4, "3", "4")


@pytest.mark.parametrize(
    ("named", "keys", "expected"),
    [
        (None, {"split": "test"}, "one dataset without splits, and 'test' is asked for"),
        (None, {"heldout_split": "test"}, "one dataset without splits, and 'test' is asked for"),
        ("test", {}, "holds the split 'test' alone, and 'train' is asked for"),
    ],
)
def test_a_saved_dataset_without_splits_has_none(
    tmp_path: Path, named: str, keys: dict[str, str], expected: str
) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        open_prompts(saved(tmp_path, named).model_copy(update=keys), seed=0)


def test_splits_do_not_share_questions(tmp_path: Path) -> None:
    parts = {"train": ["a", "b"], "test": ["b"]}
    splits = {key: datasets.Dataset.from_dict({"question": q, "answer": q}) for key, q in parts.items()}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    table = HuggingFacePrompts(source="huggingface", dataset=str(tmp_path / "saved"), heldout_split="test")
    assert questions(open_prompts(table, seed=0)) == ["a"]
    with pytest.raises(InvalidInputError, match="no split 'tets'; it has 'train', 'test'"):
        open_prompts(table.model_copy(update={"heldout_split": "tets"}), seed=0)


def test_a_hugging_face_dataset_of_files_opens(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"question": f"q{i}", "answer": str(i)} for i in range(4)])
    table = HuggingFacePrompts(source="huggingface", dataset=str(tmp_path), num_heldout=1)
    assert open_prompts(table, seed=0).num_train == 3


def test_numbers_whose_spelling_was_lost_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("question,answer\na,007\nb,1\n")
    table = HuggingFacePrompts(source="huggingface", dataset=str(tmp_path), num_heldout=1)
    with pytest.raises(InvalidInputError, match=r"'answer' is a column of numbers .* prompts\.source = 'file'"):
        open_prompts(table, seed=0)


def test_reasoning_gym_makes_problems_and_holds_some_out() -> None:
    table = ReasoningGymPrompts(source="reasoning-gym", name="chain_sum", num_train=40, num_heldout=10)
    prompts = open_prompts(table, seed=1)
    assert (prompts.num_train, prompts.num_heldout) == (40, 10)
    heldout = {prompts.heldout(index).messages[0].content for index in range(10)}
    assert not set(questions(prompts)) & heldout
    assert open_prompts(table, seed=1).train(3) == prompts.train(3)


def test_reasoning_gym_names_the_nearest_dataset() -> None:
    with pytest.raises(InvalidInputError, match="chain_sum"):
        open_prompts(ReasoningGymPrompts(source="reasoning-gym", name="chain_sums"), seed=0)


def test_reasoning_gym_options_are_checked() -> None:
    table = ReasoningGymPrompts(source="reasoning-gym", name="chain_sum", options={"min_turms": 3})
    with pytest.raises(InvalidInputError, match="min_turms"):
        open_prompts(table, seed=0)
