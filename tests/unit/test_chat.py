"""Tokenizers and chat templates: what a model cannot use is refused, and its turns end as its template ends them."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from perilune.errors import InvalidInputError
from perilune.models.chat import (
    check_continuation,
    check_ids,
    check_tokenizer,
    closing_token,
    continuation_ids,
    prompt_ids,
    set_template,
)
from tests.unit.rollout.tiny import TEMPLATE, WORDS, tiny_tokenizer

CHATML = (
    "{% for message in messages %}{{ 'w1 ' + message['content'] + ' <end> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'w2 ' }}{% endif %}"
)


def test_a_turn_ends_with_the_token_that_the_template_ends_it_with() -> None:
    tokenizer = tiny_tokenizer(CHATML)
    tokenizer.add_tokens([AddedToken("<end>", special=True)])
    end, eos = tokenizer.convert_tokens_to_ids("<end>"), tokenizer.eos_token_id
    assert closing_token(tokenizer, [eos, end]) == end
    assert closing_token(tokenizer, [eos]) is None
    tokenizer.chat_template = None
    assert closing_token(tokenizer, [eos, end]) is None


def test_of_several_templates_the_default_is_taken_or_their_names_are_said() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"default": TEMPLATE, "rag": "{{ 'w9' }}"}
    check_tokenizer(tokenizer, len(WORDS), "Tiny")
    assert prompt_ids(tokenizer, [{"role": "user", "content": "w1"}]) == [1, 5]
    tokenizer.chat_template = {"tool_use": TEMPLATE, "rag": TEMPLATE}
    with pytest.raises(InvalidInputError, match=r"Tiny has several .*rag, tool_use; rename"):
        check_tokenizer(tokenizer, len(WORDS), "Tiny")


def test_a_tokenizer_larger_than_the_embedding_is_refused_by_its_first_token() -> None:
    tokenizer = tiny_tokenizer()
    check_tokenizer(tokenizer, len(WORDS), "Tiny")
    with pytest.raises(InvalidInputError, match=r"2 tokens beyond the 62 that Tiny .* 'w58'"):
        check_tokenizer(tokenizer, len(WORDS) - 2, "Tiny")
    tokenizer.add_tokens([AddedToken("<image>", special=True)])
    check_tokenizer(tokenizer, len(WORDS), "Tiny")  # no template writes it, as with Gemma 3's <image_soft_token>
    with pytest.raises(InvalidInputError, match=r"prompt p .* token 64"):
        check_ids(prompt_ids(tokenizer, [{"role": "user", "content": "<image>"}]), len(WORDS), "prompt p")
    tokenizer.chat_template = "{{ '<image>' }}"
    with pytest.raises(InvalidInputError, match="<image>"):
        check_tokenizer(tokenizer, len(WORDS), "Tiny")


def test_without_a_template_a_prompt_is_its_messages_text() -> None:
    chat = [{"role": "system", "content": "w1"}, {"role": "user", "content": "w2 w3"}]
    assert prompt_ids(tiny_tokenizer(None), chat) == [5, 6, 7]


def test_messages_that_the_template_refuses_are_an_error_in_words() -> None:
    tokenizer = tiny_tokenizer("{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system.') }}{% endif %}")
    with pytest.raises(InvalidInputError, match=r"refuses the messages \(roles: system\).*No system"):
        prompt_ids(tokenizer, [{"role": "system", "content": "w1"}])
    with pytest.raises(InvalidInputError, match="refuses"):
        prompt_ids(tiny_tokenizer(), [{"role": "user", "content": "\ud800"}])


@pytest.mark.parametrize("template", [TEMPLATE, CHATML, None])
def test_a_last_message_of_the_assistant_is_gone_on_with(template: str | None) -> None:
    """It ends where it ends: no end of turn comes after it, and no other turn begins."""
    tokenizer = tiny_tokenizer(template)
    tokenizer.add_tokens([AddedToken("<end>", special=True)])
    asked = [{"role": "user", "content": "w3"}]
    ids = prompt_ids(tokenizer, [*asked, {"role": "assistant", "content": "w4 w5"}])
    assert tokenizer.convert_ids_to_tokens(ids)[-2:] == ["w4", "w5"]
    closed = prompt_ids(tokenizer, [*asked, {"role": "assistant", "content": "w4 w5"}, *asked])
    assert ids == closed[: len(ids)]


THINKING = (
    "{% for message in messages %}{{ message['content'] + ' ' }}{% endfor %}"
    "{% if enable_thinking is defined and not enable_thinking %}w8 {% endif %}{{ kind or '' }}"
)


def test_arguments_of_a_template_become_its_defaults() -> None:
    tokenizer = tiny_tokenizer()
    asked = [{"role": "user", "content": "w3"}]
    words = lambda: tokenizer.convert_ids_to_tokens(prompt_ids(tokenizer, asked))  # noqa: E731
    set_template(tokenizer, THINKING, {})
    assert words() == ["w3"]
    set_template(tokenizer, THINKING, {"enable_thinking": False, "kind": "w9"})
    assert words() == ["w3", "w8", "w9"]
    text = tokenizer.apply_chat_template(asked, tokenize=False, enable_thinking=True, kind="w7")
    assert text.split() == ["w3", "w7"]  # whoever says otherwise has it otherwise
    set_template(tokenizer, None, {"enable_thinking": True})
    assert words() == ["w3", "w9"]


@pytest.mark.parametrize(
    ("own", "template", "arguments", "expected"),
    [
        (TEMPLATE, None, {"enable_thinkin": False}, "takes no argument 'enable_thinkin'"),
        (None, None, {"enable_thinking": False}, r"no chat template that takes any; set model\.chat_template"),
        (TEMPLATE, "{% for %}", {}, r"model\.chat_template, line 1: "),
    ],
)
def test_a_template_that_cannot_be_used_is_named(
    own: str | None, template: str | None, arguments: dict[str, bool], expected: str
) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        set_template(tiny_tokenizer(own), template, arguments)


CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def chatml() -> PreTrainedTokenizerFast:
    """A tokenizer as models have them: pieces of words, and turns between special tokens."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    pieces.train_from_iterator(["user assistant tool higher number", "could be brief maybe"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="<|im_end|>", chat_template=CHAT)


SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "Which number?"}


@pytest.mark.parametrize(
    "messages", [[SYSTEM, ASKED], [SYSTEM, ASKED, {"role": "assistant", "content": "It could be "}]]
)
def test_a_continued_conversation_has_the_ids_that_its_template_gives(
    chatml: Any, messages: list[dict[str, str]]
) -> None:
    turns = ["7\n\n  maybe", "no, 9 perilune"]
    answers = [[{"role": "tool", "content": "12"}, {"role": "user", "content": "Higher!"}], [ASKED]]
    so_far = prompt_ids(chatml, messages)
    for turn, said in zip(turns, answers, strict=True):
        so_far += chatml(turn, add_special_tokens=False)["input_ids"]
        so_far += continuation_ids(chatml, messages, turn, said)
    begun = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
    whole = [
        SYSTEM,
        ASKED,
        {"role": "assistant", "content": begun + turns[0]},
        *answers[0],
        {"role": "assistant", "content": turns[1]},
        *answers[1],
    ]
    assert chatml.decode(so_far) == chatml.apply_chat_template(whole, tokenize=False, add_generation_prompt=True)
    if not begun:  # else the border lies within what the template would cut into pieces itself
        assert so_far == prompt_ids(chatml, whole)


def test_behind_the_last_answer_no_turn_is_opened(chatml: Any) -> None:
    ids = continuation_ids(chatml, [ASKED], "7", [{"role": "user", "content": "Right."}], is_final=True)
    assert chatml.decode(ids) == "<|im_end|>\n<|im_start|>user\nRight.<|im_end|>\n"


ONE = "{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' + REPLACED + '<|im_end|>' }}{% endfor %}"
OPENS = "{% if add_generation_prompt %}{{ '<|im_start|>assistant ' }}{% endif %}"


@pytest.mark.parametrize(
    ("content", "opens", "said"),
    [
        ("m.content", OPENS, None),
        (
            "m.content",
            OPENS + "{% if add_generation_prompt %}{{ '<think>' }}{% endif %}",
            "it opens the assistant's turn",
        ),
        ("(m.content if loop.last else '')", OPENS, "it opens the assistant's turn otherwise"),
        ("m.content.split('</think>')[-1]", OPENS, "it changes the assistant's earlier turn, which was 'a</think>b'"),
        ("m.content.strip()", OPENS, None),  # spaces may be its own
        ("(raise_exception('No tools.') if m.role == 'tool' else m.content)", OPENS, "No tools."),
    ],
)
def test_a_template_that_cannot_be_continued_is_refused_in_words(
    chatml: Any, content: str, opens: str, said: str | None
) -> None:
    tokenizer = copy.deepcopy(chatml)
    tokenizer.chat_template = ONE.replace("REPLACED", content) + opens
    turn = "a</think>b" if "think" in content else " a "
    with pytest.raises(InvalidInputError, match=said) if said else nullcontext():
        continuation_ids(tokenizer, [ASKED], turn, [{"role": "tool", "content": "12"}])


def test_whether_a_model_can_be_answered_is_known_when_it_is_loaded(chatml: Any) -> None:
    end = chatml.convert_tokens_to_ids("<|im_end|>")
    check_continuation(chatml, [end], ["user", "tool"])
    check_continuation(tiny_tokenizer(None), [], [])  # raw text needs no template
    with pytest.raises(InvalidInputError, match="none of the tokens that end a response"):
        check_continuation(chatml, [0], ["user"])
    with pytest.raises(InvalidInputError, match="has no chat template that could render"):
        check_continuation(tiny_tokenizer(None), [2], ["user"])
