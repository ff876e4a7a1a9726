"""Tokenizers and chat templates: what a model cannot use is refused, and its turns end as its template ends them."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken

from perilune.errors import InvalidInputError
from perilune.models.chat import check_ids, check_tokenizer, closing_token, prompt_ids, set_template
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
