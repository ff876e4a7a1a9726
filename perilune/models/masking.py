"""Says which tokens of an example are learnt: exactly those that the model itself will have to write.

Each response is cut out of the text that the chat template renders, and is tokenized by itself, as a rollout's response
is. Where it lies is found in one of two ways: by `{% generation %}` marks, where the template has them; else by
rendering what comes before it, with the assistant's turn opened, and what ends with it. A template that strips
something from earlier turns (reasoning, say) makes a sequence of each response.

Needs no transformers of its own but to read the marks: it is handed the tokenizer.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from perilune.errors import InvalidInputError
from perilune.models.chat import Message, chat_text, said, text_with_generation, unused_in, without_space

if TYPE_CHECKING:  # who only looks at text has no numpy
    import numpy as np
    from numpy.typing import NDArray

    from perilune.data.examples import Example, Turn
    from perilune.models.vision import PlacedImage

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_OPENED_TAG = re.compile(r"(<[^<>\s]+>)\s*$")  # such as <think>, which some templates open the assistant's turn with


class Tokens(NamedTuple):
    """A sequence, and which of its tokens are learnt."""

    tokens: NDArray[np.int64]
    learnt: NDArray[np.bool_]
    images: tuple[PlacedImage, ...] = ()  # where they lie in the tokens


class Rendered(NamedTuple):
    """A sequence as text."""

    text: str
    spans: list[tuple[int, int]]  # the characters that are learnt, in order
    is_closed: bool  # the last span ends with a token that ends a response; else one is put there
    is_plain: bool = False  # no template wrote it: the tokenizer adds its special tokens


def tokenize(tokenizer: Any, end_tokens: Sequence[int], examples: Sequence[Example]) -> list[list[Tokens]]:
    """Each example's sequences, with what of them is learnt.

    Args:
        end_tokens: that may end a response; the first is put where the template writes none.

    Raises:
        InvalidInputError: the template or the tokenizer refuses an example, or what is learnt cannot be made out.
    """
    parts = [rendered(tokenizer, end_tokens, example) for example in examples]
    pieces = iter(_ids_of_pieces(tokenizer, [each for example in parts for each in example]))
    return [[_tokens(each, next(pieces), end_tokens[0]) for each in example] for example in parts]


def rendered(tokenizer: Any, end_tokens: Sequence[int], example: Example) -> list[Rendered]:
    """An example's sequences as texts. Errors as of `tokenize`."""
    ends = [str(token) for token in tokenizer.convert_ids_to_tokens(list(end_tokens)) if token is not None]
    if isinstance(example[0].prompt, str) or not tokenizer.chat_template:
        return [_plain(turn, ends) for turn in example]
    if _is_marked(tokenizer, example):
        return [_marked(tokenizer, example, ends)]
    return list(_joined(_turn(tokenizer, turn, ends) for turn in example))


def _plain(turn: Turn, ends: Sequence[str]) -> Rendered:
    """A turn without a template: the messages' texts, a line each, and the response behind them."""
    if not isinstance(turn.response, str) or turn.tools:
        raise InvalidInputError("the model has no chat template that could render roles and tools; set one")
    prompt = turn.prompt if isinstance(turn.prompt, str) else "\n".join(said(each) for each in turn.prompt)
    text = prompt + turn.response
    return Rendered(text, [(len(prompt), len(text))], text.endswith(tuple(ends)), is_plain=True)


# --- Templates with marks -----------------------------------------------------------------------------------------


def _is_marked(tokenizer: Any, example: Example) -> bool:
    """Tests whether the template says itself what the assistant generates, and that is what is learnt."""
    template = tokenizer.chat_template
    texts = template.values() if isinstance(template, dict) else [template]
    return any(map(_GENERATION.search, texts)) and not any(
        _role(turn) != "assistant" or _begun(turn) for turn in example
    )


def _marked(tokenizer: Any, example: Example, ends: Sequence[str]) -> Rendered:
    last = example[-1]
    messages = _whole(last)
    text, spans = text_with_generation(tokenizer, messages, last.tools)
    _check_tools(last, text)
    said = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    learnt = {_place(turn) for turn in example}
    if len(spans) == len(said):  # a greeting is marked too
        spans = [span for place, span in zip(said, spans, strict=True) if place in learnt]
    spans = [span for span in spans if span[0] < span[1]]
    if not spans:
        raise InvalidInputError("the chat template has {% generation %} marks, and marks nothing of this conversation")
    end = spans[-1][1]
    return Rendered(text[:end], spans, is_closed=True)


# --- Templates without --------------------------------------------------------------------------------------------


class _Said(NamedTuple):
    opened: str  # all before the response
    response: str  # with what closes the turn
    is_closed: bool


def _joined(turns: Iterator[_Said]) -> Iterator[Rendered]:
    """One sequence for as many turns as each begins with what was there before."""
    text, spans = "", list[tuple[int, int]]()
    is_closed = True
    for turn in turns:
        if spans and not (is_closed and turn.opened.startswith(text)):
            yield Rendered(text, spans, is_closed)
            spans = []
        text = turn.opened + turn.response
        spans = [*spans, (len(turn.opened), len(text))]
        is_closed = turn.is_closed
    yield Rendered(text, spans, is_closed)


def _turn(tokenizer: Any, turn: Turn, ends: Sequence[str]) -> _Said:
    """A turn with its response as the template writes it; as it stands, where the template rewrites it."""
    opened = _opened(tokenizer, turn)
    whole = chat_text(tokenizer, _whole(turn), turn.tools, is_closed=True)
    response = whole.removeprefix(opened)
    _check_tools(turn, whole)
    if whole.startswith(opened) and all(without_space(part) in without_space(response) for part in _parts(turn)):
        bare = response.rstrip()
        return _Said(opened, bare, bare.endswith(tuple(ends)))
    if isinstance(turn.response, str):
        return _Said(opened, _unopened(turn.response, opened), False)
    raise InvalidInputError(
        f"which tokens of the message of {_role(turn)!r} are learnt cannot be made out: the model's chat template "
        "writes what comes before it otherwise when it is there, or leaves out some of it (content, calls of tools, "
        "reasoning); set model.chat_template to one that keeps messages as they were said, or that marks what is "
        "generated with {% generation %}"
    )


def _check_tools(turn: Turn, text: str) -> None:
    """InvalidInputError if a template does not write the tools that a conversation offers."""
    names = [str(tool.get("function", tool).get("name", "")) for tool in turn.tools or ()]
    if missing := [name for name in names if name not in text]:
        raise InvalidInputError(
            f"the model's chat template does not write tools ({missing[0]!r}); set model.chat_template to one that does"
        )


def _parts(turn: Turn) -> list[str]:
    """All that a response says."""
    if isinstance(turn.response, str):
        return [turn.response]
    said = [turn.response.get(name) for name in ("content", "reasoning_content", "thinking")]
    calls = [call["function"]["name"] for call in turn.response.get("tool_calls", ())]
    return [str(part) for part in (*said, *calls) if part]


def _opened(tokenizer: Any, turn: Turn) -> str:
    """All that the template writes before a message's content."""
    if _role(turn) == "assistant":
        return chat_text(tokenizer, _messages(turn), turn.tools, is_begun=bool(_begun(turn)))
    marker = unused_in(" ".join(said(message) for message in _whole(turn)))
    *before, message = _whole(turn)
    text = chat_text(tokenizer, [*before, {**message, "content": marker}], turn.tools, is_closed=True)
    return text.partition(marker)[0]


def _unopened(response: str, opened: str) -> str:
    """A response without the tag that the template opened the turn with already."""
    tag = _OPENED_TAG.search(opened)
    is_twice = tag is not None and response.lstrip().startswith(tag[1])
    return response.lstrip().removeprefix(tag[1]).lstrip() if tag and is_twice else response


def _whole(turn: Turn) -> list[Message]:
    """The conversation up to the response, with it."""
    messages = _messages(turn)
    if not isinstance(turn.response, str):
        return [*messages, turn.response]
    if begun := _begun(turn):
        messages.pop()
    return [*messages, {"role": "assistant", "content": begun + turn.response}]


def _messages(turn: Turn) -> list[Message]:
    assert not isinstance(turn.prompt, str)  # those are plain
    return list(turn.prompt)


def _begun(turn: Turn) -> str:
    """The beginning of the response that the prompt ends with, which is not learnt; "" if there is none."""
    messages = _messages(turn)
    is_begun = bool(messages) and messages[-1]["role"] == "assistant" and isinstance(turn.response, str)
    return str(messages[-1]["content"]) if is_begun else ""


def _place(turn: Turn) -> int:
    return len(_whole(turn)) - 1


def _role(turn: Turn) -> str:
    return "assistant" if isinstance(turn.response, str) else str(turn.response["role"])


# --- Tokens -------------------------------------------------------------------------------------------------------


def _ids_of_pieces(tokenizer: Any, parts: Sequence[Rendered]) -> Iterator[list[list[int]]]:
    """The ids of each text, cut where what is learnt begins and ends: learnt pieces have the odd places."""
    cut = [_pieces(part) for part in parts]
    texts = [text for pieces in cut for text in pieces if text]
    ids = iter(tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
    for part, pieces in zip(parts, cut, strict=True):
        found = [next(ids) if text else [] for text in pieces]
        if part.is_plain:
            found[0] = tokenizer(pieces[0])["input_ids"]  # with what the tokenizer begins a text with
        yield found


def _pieces(part: Rendered) -> list[str]:
    bounds = [0, *(bound for span in part.spans for bound in span), len(part.text)]
    return [part.text[begin:end] for begin, end in itertools.pairwise(bounds)]


def _tokens(part: Rendered, pieces: Sequence[Sequence[int]], end_token: int) -> Tokens:
    import numpy as np

    ids = [token for piece in pieces for token in piece]
    learnt = [place % 2 == 1 for place, piece in enumerate(pieces) for _ in piece]
    if not part.is_closed:
        ids, learnt = [*ids, end_token], [*learnt, True]
    if learnt:
        learnt[0] = False  # nothing comes before it that it could be predicted from
    return Tokens(np.array(ids, np.int64), np.array(learnt, np.bool_))
