"""Examples of supervised fine-tuning: conversations with the responses to learn, from rows of JSON lines.

Nothing here imports torch, so that a recipe's files can be looked at before a trainer is started.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from perilune.data.jsonlines import lines_of, parse_object
from perilune.data.rows import kind_of, messages_of, plain_text, value_at
from perilune.errors import InvalidInputError
from perilune.models.chat import prompt_ids
from perilune.recipe import SftStage

if TYPE_CHECKING:  # who only looks at examples, as the master does, has no numpy
    import numpy as np
    from numpy.typing import NDArray

Messages = list[dict[str, str]]


class Turn(NamedTuple):
    """All that was said before a response, and the response, which is learnt."""

    prompt: Messages
    response: str


Example = tuple[Turn, ...]  # of one conversation, in order


class Tokens(NamedTuple):
    """A sequence, and which of its tokens are learnt."""

    tokens: NDArray[np.int64]
    learnt: NDArray[np.bool_]


def read_examples(table: SftStage) -> list[Example]:
    """The examples of a stage's files, the first `num_examples` of them.

    NotFoundError: no such file. InvalidInputError: no examples, or a line that is none, by its file and number.
    """
    examples = [example for path in table.path for example in _examples_of_file(path, table)]
    if not examples:
        raise InvalidInputError(f"there are no examples in {', '.join(table.path)}")
    return examples[: table.num_examples]


def _examples_of_file(path: str, table: SftStage) -> Iterator[Example]:
    for number, line in lines_of(path):
        where = f"{path}:{number}"
        yield example_of_row(parse_object(line, where), table, where)


def example_of_row(row: Mapping[str, Any], table: SftStage, where: str) -> Example:
    """One row as an example. InvalidInputError names the place and the key that is wrong."""
    if _has(row, table.messages):
        return conversation(value_at(row, table.messages, where), where, table.messages)
    if missing := [key for key in (table.question, table.response) if not _has(row, key)]:
        raise InvalidInputError(
            f"{where} has no {missing[0]!r}: a row has {table.messages!r}, or {table.question!r} and "
            f"{table.response!r} (the stage's keys messages, question and response name others), and this is "
            f"{kind_of(row)}"
        )
    question, response = value_at(row, table.question, where), value_at(row, table.response, where)
    return (Turn(_prompt(question, where, table.question), plain_text(response, where, table.response)),)


def conversation(value: Any, where: str, key: str) -> Example:
    """All that the assistant says in answer to something. InvalidInputError if that is nothing."""
    if not isinstance(value, list):
        raise InvalidInputError(f"{where}: {key!r} must be a list of {{role, content}}, and is {kind_of(value)}")
    messages = messages_of(value, where, key)
    roles = [message["role"] for message in messages]
    for place in range(1, len(roles)):
        if roles[place - 1] == roles[place] == "assistant":
            raise InvalidInputError(f"{where}: '{key}[{place}]' follows another message of the assistant: join the two")
    # A greeting that opens a conversation answers nothing: it is read, and not learnt.
    answers = [place for place, role in enumerate(roles) if role == "assistant" and {*roles[:place]} - {"system"}]
    if not answers:
        raise InvalidInputError(f"{where}: {key!r} has no message of the assistant after one of the user to learn from")
    return tuple(Turn(messages[:place], messages[place]["content"]) for place in answers)


def tokenize(tokenizer: Any, eos_token_id: int, examples: Sequence[Example]) -> list[list[Tokens]]:
    """Each example's sequences: prompts, and responses with an end of sequence each, which are learnt.

    A conversation is one sequence where the chat template writes earlier turns as they were said. Where it does not (it
    strips reasoning from them, say), each response has a sequence of its own, with the prompt that it will be asked by.
    InvalidInputError if the template or the tokenizer refuses an example.
    """
    texts = [turn.response for example in examples for turn in example]
    responses = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    return [list(_sequences(tokenizer, eos_token_id, example, responses)) for example in examples]


def _sequences(tokenizer: Any, eos_token_id: int, example: Example, responses: Iterator[list[int]]) -> Iterator[Tokens]:
    tokens: list[int] = []
    learnt: list[bool] = []
    for turn, response in zip(example, responses, strict=False):
        prompt = prompt_ids(tokenizer, turn.prompt)
        if tokens and prompt[: len(tokens)] != tokens:
            yield _as_arrays(tokens, learnt)
            tokens, learnt = [], []
        learnt += [False] * (len(prompt) - len(tokens)) + [True] * (len(response) + 1)
        tokens = [*prompt, *response, eos_token_id]
    yield _as_arrays(tokens, learnt)


def _as_arrays(tokens: list[int], learnt: list[bool]) -> Tokens:
    import numpy as np

    return Tokens(np.array(tokens, np.int64), np.array(learnt))


def refuse_long(lengths: Sequence[int], context: int | None, what: str) -> None:
    """InvalidInputError if some examples have more tokens than the model can read; `what` says where they lie.

    `lengths`: of each example's longest sequence.
    """
    long = [number for number, length in enumerate(lengths, start=1) if context is not None and length > context]
    if long:
        raise InvalidInputError(
            f"{len(long)} of {len(lengths)} examples of {what} have more tokens than the model's context of {context}, "
            f"the longest {max(lengths)}; the first is number {long[0]}: shorten or remove them, or take a model with "
            "more context"
        )


class Shuffled:
    """Examples by a running number: all of them once an epoch, each epoch in another order of the seed's."""

    def __init__(self, examples: Sequence[Example], seed: int) -> None:
        self._order, self._seed, self._epoch = list(examples), seed, -1

    def __getitem__(self, number: int) -> Example:
        """The example of that number; of no earlier epoch than was asked for before."""
        epoch, place = divmod(number, len(self._order))
        while self._epoch < epoch:  # each order is made from the one before
            self._epoch += 1
            Random(f"epoch/{self._seed}/{self._epoch}").shuffle(self._order)
        return self._order[place]


def _has(row: Mapping[str, Any], key: str) -> bool:
    try:
        value_at(row, key, "")
    except InvalidInputError:
        return False
    return True


def _prompt(question: Any, where: str, key: str) -> Messages:
    if isinstance(question, list):
        return messages_of(question, where, key)
    return [{"role": "user", "content": plain_text(question, where, key)}]
