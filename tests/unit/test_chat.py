"""Tokenizers and chat templates: what a model cannot use is refused, and its turns end as its template ends them."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken

from perilune.chat import check_ids, check_tokenizer, closing_token, prompt_ids
from perilune.errors import InvalidInputError
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
