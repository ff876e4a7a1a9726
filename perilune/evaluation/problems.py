"""What a row of a benchmark's data asks, and how its answers are graded. A function reads rows of one benchmark.

Rows are data: nothing in them is run or evaluated here. A row that cannot be used is an error that says why.
"""

from __future__ import annotations

import ast
import base64
import json
import mimetypes
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perilune.data.jsonlines import ExactNumber
from perilune.data.rows import kind_of, messages_of, text_of, value_at
from perilune.errors import InvalidInputError

Row = Mapping[str, Any]
Reader = Callable[[Row, str], "Problem"]
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Problem:
    """One problem: messages to a model, and graders of `perilune.client` for what it answers."""

    id: str
    messages: Sequence[Mapping[str, Any]]
    reference: str
    graders: Sequence[Mapping[str, Any]]

    @property
    def question(self) -> str:
        """The text of the messages, as graders and readers see it."""
        return "\n\n".join(_text_in(message["content"]) for message in self.messages)


def asked(name: str, question: str, reference: str, *graders: Mapping[str, Any]) -> Problem:
    """A problem of one message of the user."""
    return Problem(name, [{"role": "user", "content": question}], reference, graders)


def grader(name: str, **options: object) -> dict[str, Any]:
    """A grader with its options."""
    return {"name": name, "options": options}


# --- Choices ------------------------------------------------------------------------------------------------------

MMLU_PROMPT = """\
Answer the following multiple choice question. Think step by step, and end with "Answer: " and the letter.

{question}

{options}"""
CEVAL_PROMPT = """\
以下是中国考试的单项选择题，请一步步思考，并以“答案是”和选项字母结尾。

{question}

{options}"""


def mmlu(row: Row, where: str) -> Problem:
    """A row of MMLU: {question, subject, choices, answer}, the answer a place from 0."""
    options = _texts(value_at(row, "choices", where), where, "choices")
    place = _whole(value_at(row, "answer", where), where, "answer")
    if not 0 <= place < len(options):
        raise InvalidInputError(f"{where}: 'answer' is {place}, and there are {len(options)} choices")
    return _choice(str(row.get("subject", where)), _text(row, where, "question"), options, LETTERS[place], MMLU_PROMPT)


def ceval(row: Row, where: str) -> Problem:
    """A row of C-Eval: {id, question, A, B, C, D, answer}, the answer a letter."""
    options = [_text(row, where, letter) for letter in "ABCD"]
    answer = _text(row, where, "answer").strip()
    if answer not in "ABCD":
        raise InvalidInputError(f"{where}: 'answer' is {answer!r}, and no letter from A to D")
    return _choice(str(row.get("id", where)), _text(row, where, "question"), options, answer, CEVAL_PROMPT)


def _choice(name: str, question: str, options: Sequence[str], answer: str, prompt: str) -> Problem:
    lines = [" ".join(option.split()) for option in options]
    listed = "\n".join(f"{letter}. {line}" for letter, line in zip(LETTERS, lines, strict=False))
    return asked(
        name,
        prompt.replace("{question}", question).replace("{options}", listed),
        answer,
        grader("choice", choices="\n".join(lines)),
    )


CLUEWSC_PROMPT = """\
{text}

上面的句子中，代词“{pronoun}”指的是“{noun}”吗？请一步步思考，并以“答案是”和字母结尾。

A. 是
B. 不是"""
_IS_SAME = {"true": "A", "0": "A", "false": "B", "1": "B"}  # as CLUE writes it, and as the hub numbers its labels


def cluewsc(row: Row, where: str) -> Problem:
    """A row of CLUEWSC2020: {text, target: {span1_text, span2_text}, label}."""
    noun, pronoun = (
        text_of(value_at(row, f"target.{span}_text", where), where, f"target.{span}_text")
        for span in ("span1", "span2")
    )
    label = _plain(value_at(row, "label", where))
    if str(label).lower() not in _IS_SAME:
        raise InvalidInputError(f"{where}: 'label' is {kind_of(label)}, and neither true nor false")
    said = CLUEWSC_PROMPT.format(text=_text(row, where, "text"), pronoun=pronoun, noun=noun)
    return asked(str(row.get("idx", where)), said, _IS_SAME[str(label).lower()], grader("choice", choices="是\n不是"))


# --- Instructions -------------------------------------------------------------------------------------------------


def ifeval(row: Row, where: str) -> Problem:
    """A row of IF-Eval: {key, prompt, instruction_id_list, kwargs}; all instructions have to be followed (strict)."""
    names = _texts(value_at(row, "instruction_id_list", where), where, "instruction_id_list")
    arguments = value_at(row, "kwargs", where)
    if not isinstance(arguments, list) or len(arguments) != len(names):
        raise InvalidInputError(f"{where}: 'kwargs' must be a list of {len(names)} objects, one for each instruction")
    # Parquet gives every instruction the arguments of all: what is null was not given.
    given = [{key: _plain(value) for key, value in each.items() if value is not None} for each in arguments]
    instructions = [{"id": name, **each} for name, each in zip(names, given, strict=True)]
    reference = json.dumps(instructions, ensure_ascii=False)
    return asked(str(_plain(row.get("key", where))), _text(row, where, "prompt"), reference, grader("instructions"))


# --- Mathematics --------------------------------------------------------------------------------------------------

MATH_PROMPT = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}."


def math500(row: Row, where: str) -> Problem:
    """A row of MATH-500: {problem, answer, unique_id}."""
    return _math(str(row.get("unique_id", where)), _text(row, where, "problem"), _text(row, where, "answer"))


def aime(row: Row, where: str) -> Problem:
    """A row of AIME 2024: {ID, Problem, Answer}, or the same in small letters."""
    found = {key.lower(): value for key, value in row.items()}
    return _math(str(found.get("id", where)), _text(found, where, "problem"), _text(found, where, "answer"))


def _math(name: str, question: str, answer: str) -> Problem:
    return asked(name, MATH_PROMPT.replace("{question}", question), answer, grader("math"))


# --- Code ---------------------------------------------------------------------------------------------------------

HUMANEVAL_PROMPT = """\
Complete the following Python function. Answer with the whole function in one code block.

```python
{prompt}```"""


def humaneval(row: Row, where: str) -> Problem:
    """A row of HumanEval: {task_id, prompt, test, entry_point}."""
    _text(row, where, "test"), _text(row, where, "entry_point")
    name, prompt = _text(row, where, "task_id"), _text(row, where, "prompt")
    reference = json.dumps({key: row[key] for key in ("prompt", "test", "entry_point")})
    return asked(name, HUMANEVAL_PROMPT.format(prompt=prompt), reference, grader("code", format="humaneval"))


FUNCTION_PROMPT = """\
Complete the following {language} function. Answer with the whole function in one code block.

```{tag}
{prompt}```"""


def translated(row: Row, where: str) -> Problem:
    """A row of HumanEval in a language, as `translation` writes it."""
    language, name = _text(row, where, "language"), _text(row, where, "name")
    said = FUNCTION_PROMPT.format(language=language, tag=language, prompt=_text(row, where, "prompt"))
    reference = json.dumps(dict(row))
    return asked(f"{name} {language}", said, reference, grader("code", format="translated", language=language))


CONTEST_PROMPT = """\
{statement}

Write a Python program that reads the input from standard input and writes the answer to standard output. Answer with \
the whole program in one code block."""
STARTER_PROMPT = """\
{statement}

Write a Python solution with this beginning. Answer with the whole of it in one code block.

```python
{starter}
```"""


def livecodebench(row: Row, where: str) -> Problem:
    """A row of LiveCodeBench: {question_id, question_content, starter_code, public_test_cases, …}."""
    statement, starter = _text(row, where, "question_content"), row.get("starter_code") or ""
    prompt = STARTER_PROMPT if starter else CONTEST_PROMPT
    keys = ("tests", "public_test_cases", "private_test_cases", "metadata")
    reference = json.dumps({key: row[key] for key in keys if key in row}, default=_as_json)
    return asked(
        str(row.get("question_id", where)),
        prompt.replace("{statement}", statement).replace("{starter}", str(starter)),
        reference,
        grader("code", format="livecodebench"),
    )


def codeforces(row: Row, where: str) -> Problem:
    """A row of Codeforces: {id, description, input_format, output_format, examples, official_tests}, tests as
    {input, output}."""
    tests = [*(row.get("examples") or []), *(row.get("official_tests") or [])]
    if not tests or not all(isinstance(test, Mapping) and {"input", "output"} <= test.keys() for test in tests):
        raise InvalidInputError(f"{where}: 'examples' and 'official_tests' must have objects with 'input' and 'output'")
    cases = [{"input": test["input"], "output": test["output"], "testtype": "stdin"} for test in tests]
    parts = [_text(row, where, "description")]
    parts += [f"{title}\n{row[key]}" for title, key in _PARTS.items() if row.get(key)]
    parts += [f"Example\nInput:\n{each['input']}\nOutput:\n{each['output']}" for each in row.get("examples") or []]
    said = CONTEST_PROMPT.replace("{statement}", "\n\n".join(parts))
    return asked(str(row.get("id", where)), said, json.dumps({"tests": cases}), grader("code", format="livecodebench"))


_PARTS = {"Input": "input_format", "Output": "output_format", "Note": "note"}


# --- Pictures -----------------------------------------------------------------------------------------------------

_PLACE = re.compile(r"<image\s*(\d+)>")


def mmmu(row: Row, where: str) -> Problem:
    """A row of MMMU: {id, question, options, answer, image_1 …}; the text says `<image 1>` where a picture stands."""
    options = _texts(_listed(row.get("options") or []), where, "options")
    name, question, answer = (_text(row, where, key) for key in ("id", "question", "answer"))
    plain = _choice(name, question, options, answer, MMLU_PROMPT) if options else _math(name, question, answer)
    numbers = list(dict.fromkeys(_PLACE.findall(plain.question)))
    return _with_pictures(plain, [value_at(row, f"image_{number}", where) for number in numbers], where)


def math_vision(row: Row, where: str) -> Problem:
    """A row of MATH-Vision: {id, question, options, image or decoded_image, answer}."""
    options = _texts(row.get("options") or [], where, "options")
    name, question, answer = (_text(row, where, key) for key in ("id", "question", "answer"))
    plain = _choice(name, question, options, answer, MMLU_PROMPT) if options else _math(name, question, answer)
    return _with_pictures(plain, [row.get("decoded_image") or value_at(row, "image", where)], where)


def math_vista(row: Row, where: str) -> Problem:
    """A row of MathVista: {pid, query or question, choices, image or decoded_image, answer}."""
    options = _texts(row.get("choices") or [], where, "choices")
    name, answer = _text(row, where, "pid"), _text(row, where, "answer")
    question = _text(row, where, "question")
    if options and answer in options:
        plain = _choice(name, question, options, LETTERS[options.index(answer)], MMLU_PROMPT)
    else:
        plain = _math(name, question, answer)
    return _with_pictures(plain, [row.get("decoded_image") or value_at(row, "image", where)], where)


def _with_pictures(problem: Problem, pictures: Sequence[Any], where: str) -> Problem:
    shown = [{"type": "image_url", "image_url": {"url": _data_url(picture, where)}} for picture in pictures]
    content = [*shown, {"type": "text", "text": problem.question}]
    return Problem(problem.id, [{"role": "user", "content": content}], problem.reference, problem.graders)


def image_part(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a message as an endpoint takes it: a picture in bytes becomes its URL, text stays."""
    if part["type"] != "image":
        return dict(part)
    return {"type": "image_url", "image_url": {"url": _data_url(part["bytes"], "")}}


def _data_url(picture: Any, where: str) -> str:
    """A picture as its URL: a file's path, bytes, {bytes, path} as `datasets` writes it, or a URL of data."""
    if isinstance(picture, Mapping):
        picture = picture.get("bytes") or picture.get("path")
    if isinstance(picture, str) and picture.startswith("data:"):
        return picture
    kind = "image/png"
    if isinstance(picture, str):
        path = Path(where.partition(", line ")[0].partition(", row ")[0]).parent / picture
        kind = mimetypes.guess_type(picture)[0] or kind
        try:
            picture = path.read_bytes()
        except OSError as error:
            raise InvalidInputError(f"{where}: the picture {path} cannot be read: {error.strerror}") from error
    if not isinstance(picture, bytes):
        raise InvalidInputError(f"{where}: its picture is {kind_of(picture)}, and neither a file nor bytes")
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"


# --- One's own ----------------------------------------------------------------------------------------------------


def own_prompts(question: str, answer: str, graders: Sequence[Mapping[str, Any]]) -> Reader:
    """A reader of rows with a question, which is a text or a conversation, and an answer, under these keys."""

    def read(row: Row, where: str) -> Problem:
        asked_for = value_at(row, question, where)
        messages: Sequence[Mapping[str, Any]] = (
            messages_of(asked_for, where, question)
            if isinstance(asked_for, list)
            else [{"role": "user", "content": text_of(asked_for, where, question)}]
        )
        return Problem(where, messages, text_of(value_at(row, answer, where), where, answer), graders)

    return read


# --- Fields -------------------------------------------------------------------------------------------------------


def _text(row: Row, where: str, key: str) -> str:
    return text_of(value_at(row, key, where), where, key)


def _texts(value: Any, where: str, key: str) -> list[str]:
    if not isinstance(value, list):
        raise InvalidInputError(f"{where}: {key!r} must be a list, and is {kind_of(value)}")
    return [text_of(each, where, f"{key}[{place}]") for place, each in enumerate(value)]


def _listed(value: Any) -> Any:
    """A list, also where it is written as Python writes one, as MMMU's options are."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _whole(value: Any, where: str, key: str) -> int:
    plain = _plain(value)
    if not isinstance(plain, int) or isinstance(plain, bool):
        raise InvalidInputError(f"{where}: {key!r} must be a whole number, and is {kind_of(value)}")
    return plain


def _plain(value: Any) -> Any:
    """A number as Python has it, where a file's exact one may stand."""
    return json.loads(value.text) if isinstance(value, ExactNumber) else value


def _as_json(value: Any) -> Any:
    if isinstance(value, ExactNumber):
        return json.loads(value.text)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _text_in(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content if "text" in part)
