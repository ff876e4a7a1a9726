"""Examples of supervised fine-tuning: what is read and what is learnt of a row of data.

Nothing here imports torch, so that a recipe's files can be looked at before a trainer is started.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Generic, NamedTuple, TypeVar

from perilune.data.chats import Message, Tools, chat_of, sharegpt_chat, tools_of
from perilune.data.files import READERS, Row, matching, rows_of
from perilune.data.rows import kind_of, plain_text, value_at
from perilune.errors import InvalidInputError
from perilune.recipe import DpoStage, RowsStage, SftStage

SHAREGPT = "conversations"  # the key of lists of {from, value}
IMAGE_KEYS = ("images", "image")  # of rows that are about more than text


class Turn(NamedTuple):
    """All that was said before a response, and the response, which is learnt."""

    prompt: Sequence[Message] | str  # text: no chat template renders it
    response: str | Message  # the assistant's text; or a message, of any role or with calls of tools
    tools: Tools | None = None  # that the prompt offers


Example = tuple[Turn, ...]  # of one conversation, in order
T = TypeVar("T")


# --- Files --------------------------------------------------------------------------------------------------------


def read_examples(table: RowsStage) -> list[Example]:
    """The examples of a stage's files (of pairs, both answers), of the first `num_examples` rows; without broken rows,
    where it drops them.

    NotFoundError: no such file. InvalidInputError: no examples, or a row that is none, by its file and line.
    """
    examples = list[Example]()
    for _, record in _records(table):
        if not isinstance(record, InvalidInputError):
            examples += record
        elif table.broken == "refuse":
            raise record
    if not examples:
        raise InvalidInputError(f"there are no examples in {', '.join(table.path)}")
    return examples


def _records(table: RowsStage) -> Iterator[tuple[str, tuple[Example, ...] | InvalidInputError]]:
    match table:
        case SftStage():
            return records_of(table, table.path, lambda row, where: (example_of_row(row, table, where),))
        case DpoStage():
            return records_of(table, table.path, lambda row, where: pair_of_row(row, table, where))
    raise TypeError(f"no reader for {type(table).__name__}")


def examples_of(table: SftStage, paths: Sequence[str]) -> Iterator[tuple[str, Example | InvalidInputError]]:
    """The examples of files one by one, the first `num_examples`, each with its place; of a broken row, why it is."""
    return records_of(table, paths, lambda row, where: example_of_row(row, table, where))


def records_of(
    table: RowsStage, paths: Sequence[str], read: Callable[[Mapping[str, Any], str], T]
) -> Iterator[tuple[str, T | InvalidInputError]]:
    """Returns what `read` makes of each row of files, the first `num_examples`, with its place; of a broken row, why
    it is."""
    num_read = 0
    for path in matching(paths):
        for where, row in rows_of(path, _format_of(path, table), "{}:{}"):
            if num_read == table.num_examples:
                return
            record = _read(row, where, read)
            num_read += not isinstance(record, InvalidInputError)
            yield where, record


def _format_of(path: str, table: RowsStage) -> str | None:
    """JSON lines unless the suffix says something else."""
    is_known = Path(path).is_dir() or Path(path).suffix.removeprefix(".").lower() in READERS
    return table.format or (None if is_known else "jsonl")


def _read(row: Row, where: str, read: Callable[[Mapping[str, Any], str], T]) -> T | InvalidInputError:
    if isinstance(row, InvalidInputError):
        return row
    try:
        return read(row, where)
    except InvalidInputError as error:
        return error


# --- Rows ---------------------------------------------------------------------------------------------------------


def example_of_row(row: Mapping[str, Any], table: SftStage, where: str) -> Example:
    """One row as an example. InvalidInputError names the place and the key that is wrong."""
    _refuse_images(row, where)
    tools = tools_of(_value(row, table.tools), where, table.tools)
    if (chat := _value(row, table.messages)) is not None:
        return conversation(chat, where, table.messages, table.learn, tools)
    if (chat := _value(row, SHAREGPT)) is not None:
        return conversation(sharegpt_chat(chat, where, SHAREGPT), where, SHAREGPT, table.learn, tools)
    for first, second in ((table.question, table.response), (table.prompt, table.completion)):
        if _has(row, first) and _has(row, second) and (_value(row, first), _value(row, second)) != (None, None):
            return _answered(row, (first, second), where, second == table.response, tools, table.learn)
    if (text := _value(row, table.text)) is not None:
        return (Turn("", plain_text(text, where, table.text)),)
    raise _no_example(row, table, where)


def conversation(
    value: Any, where: str, key: str, learn: Collection[str] = ("assistant",), tools: Tools | None = None
) -> Example:
    """The turns of a conversation in which these roles speak. InvalidInputError if there are none.

    A greeting of the assistant that opens a conversation answers nothing: it is read, and not learnt.
    """
    messages = chat_of(value, where, key)
    roles = [message["role"] for message in messages]
    for place in range(1, len(roles)):
        if roles[place - 1] == roles[place] == "assistant":
            raise InvalidInputError(f"{where}: '{key}[{place}]' follows another message of the assistant: join the two")
    learnt = [
        place for place, role in enumerate(roles)
        if role in learn and (role != "assistant" or {*roles[:place]} - {"system"})
    ]  # fmt: skip
    if not learnt:
        raise InvalidInputError(
            f"{where}: {key!r} has no message of the assistant after one of the user to learn from"
            if "assistant" in learn
            else f"{where}: {key!r} has no message of {' or '.join(learn)} to learn from"
        )
    return tuple(Turn(messages[:place], _response(messages[place]), tools) for place in learnt)


def _response(message: Message) -> str | Message:
    """The text alone where there is nothing but what the assistant says."""
    is_plain = message["role"] == "assistant" and message.keys() == {"role", "content"}
    return str(message["content"]) if is_plain else message


def pair_of_row(row: Mapping[str, Any], table: DpoStage, where: str) -> tuple[Example, Example]:
    """The better and the worse answer of a row. InvalidInputError names the place and the key that is wrong."""
    _refuse_images(row, where)
    tools = tools_of(_value(row, table.tools), where, table.tools)
    keys = table.chosen, table.rejected
    if value_at(row, table.chosen, where) == value_at(row, table.rejected, where):
        raise InvalidInputError(f"{where}: {keys[0]!r} and {keys[1]!r} are the same: there is nothing to prefer")
    first = next((key for key in (table.question, table.prompt) if _value(row, key) is not None), None)
    if first is None:
        row, first = _with_prompt(row, keys, where), table.prompt
    chosen, rejected = (_answered(row, (first, key), where, first == table.question, tools) for key in keys)
    return chosen, rejected


def _with_prompt(row: Mapping[str, Any], keys: tuple[str, str], where: str) -> dict[str, Any]:
    """Two whole conversations as what they share, under `prompt`, and what each goes on with."""
    talks = [chat_of(value_at(row, key, where), where, key) for key in keys]
    num_shared = next((n for n, (a, b) in enumerate(zip(*talks, strict=False)) if a != b), min(map(len, talks)))
    if not num_shared or num_shared == min(map(len, talks)):
        raise InvalidInputError(f"{where} has no question or prompt, and {keys[0]!r} and {keys[1]!r} share none")
    return {"prompt": talks[0][:num_shared], **{key: talk[num_shared:] for key, talk in zip(keys, talks, strict=True)}}


def _refuse_images(row: Mapping[str, Any], where: str) -> None:
    if pictures := [key for key in IMAGE_KEYS if row.get(key)]:
        raise InvalidInputError(f"{where} has {pictures[0]!r}: only text is learnt from; leave the row out")


def _answered(
    row: Mapping[str, Any],
    keys: tuple[str, str],
    where: str,
    is_question: bool,
    tools: Tools | None,
    learn: Collection[str] = ("assistant",),
) -> Example:
    """A prompt and what answers it, each text or messages; the text of a prompt that is no question is not rendered."""
    first, second = keys
    prompt, answer = value_at(row, first, where), value_at(row, second, where)
    if isinstance(answer, list):
        said = chat_of(prompt, where, first) if isinstance(prompt, list) else _asked(prompt, where, first)
        whole = conversation([*said, *chat_of(answer, where, second)], where, second, learn, tools)
        if not (turns := tuple(turn for turn in whole if len(turn.prompt) >= len(said))):
            raise InvalidInputError(f"{where}: {second!r} has no message of {' or '.join(learn)} to learn from")
        return turns
    response = plain_text(answer, where, second)
    if isinstance(prompt, list):
        return (Turn(_prompt(prompt, where, first), response, tools),)
    if is_question:
        return (Turn(_asked(prompt, where, first), response, tools),)
    return (Turn(plain_text(prompt, where, first, may_be_blank=True), response),)


def _asked(prompt: Any, where: str, key: str) -> list[Message]:
    return [{"role": "user", "content": plain_text(prompt, where, key)}]


def _prompt(value: Any, where: str, key: str) -> list[Message]:
    messages = chat_of(value, where, key)
    if not any(message["role"] in ("user", "tool") for message in messages):
        raise InvalidInputError(f"{where}: {key!r} has no message of the user")
    return messages


def _no_example(row: Mapping[str, Any], table: SftStage, where: str) -> InvalidInputError:
    pairs = ((table.question, table.response), (table.prompt, table.completion))
    missing = next((other for pair in pairs for key, other in (pair, pair[::-1]) if _has(row, key)), table.messages)
    return InvalidInputError(
        f"{where} has no {missing!r}: a row has {table.messages!r}, or {table.question!r} and {table.response!r}, or "
        f"{table.prompt!r} and {table.completion!r}, or {table.text!r} (keys of the stage that name others), "
        f"and this is {kind_of(row)}"
    )


def _has(row: Mapping[str, Any], key: str) -> bool:
    try:
        value_at(row, key, "")
    except InvalidInputError:
        return False
    return True


def _value(row: Mapping[str, Any], key: str) -> Any:
    """The value under a key; None if there is none."""
    return value_at(row, key, "") if _has(row, key) else None


# --- What there is to learn ---------------------------------------------------------------------------------------


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


class Shuffled(Generic[T]):
    """Examples by a running number: all of them once an epoch, each epoch in another order of the seed's."""

    def __init__(self, examples: Sequence[T], seed: int) -> None:
        self._order, self._seed, self._epoch = list(examples), seed, -1

    def __getitem__(self, number: int) -> T:
        """The example of that number; of no earlier epoch than was asked for before."""
        epoch, place = divmod(number, len(self._order))
        while self._epoch < epoch:  # each order is made from the one before
            self._epoch += 1
            Random(f"epoch/{self._seed}/{self._epoch}").shuffle(self._order)
        return self._order[place]
