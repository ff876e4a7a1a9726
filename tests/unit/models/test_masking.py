"""What is learnt of an example: exactly the tokens that the model itself will write, by each kind of template."""

from __future__ import annotations

from typing import Any

import pytest

from perilune.data.examples import Example, Turn, conversation
from perilune.errors import InvalidInputError
from perilune.models.masking import tokenize
from tests.unit.rollout.tiny import EOS, tiny_tokenizer

TURNS = (
    "{% for m in messages %}{{ 'w' ~ {'system': 50, 'user': 51, 'assistant': 52, 'tool': 53}[m.role] }} {{ m.content }}"
    "{% for call in m.tool_calls or [] %} {{ call.function.name }} {{ call.function.arguments.x }}{% endfor %} <eos> "
    "{% endfor %}{% if add_generation_prompt %}w52 {% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}w52 {% generation %}{{ m.content }} <eos>{% endgeneration %} "
    "{% else %}w51 {{ m.content }} {% endif %}{% endfor %}{% if add_generation_prompt %}w52 {% endif %}"
)
THINKING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}w52 "
    "{{ m.content if loop.last else m.content.split('w40')[-1].strip() }} <eos> "
    "{% else %}w51 {{ m.content }} {% endif %}{% endfor %}{% if add_generation_prompt %}w52 {% endif %}"
)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def learnt(template: str | None, example: Example) -> list[str]:
    """Each sequence in words, what is learnt in brackets."""
    tokenizer = tiny_tokenizer(template)
    (parts,) = tokenize(tokenizer, [EOS], [example])
    return [
        " ".join(
            f"[{word}]" if mask else word
            for word, mask in zip(tokenizer.convert_ids_to_tokens(part.tokens.tolist()), part.learnt, strict=True)
        )
        for part in parts
    ]


def of(messages: list[dict[str, Any]], *learn: str, **more: Any) -> Example:
    return conversation(messages, "here", "messages", learn or ("assistant",), **more)


def test_what_the_assistant_says_is_learnt_with_what_closes_it() -> None:
    talk = [user("w1"), assistant("w2 w3"), user("w4"), assistant("w5"), user("w6")]
    assert learnt(TURNS, of(talk)) == ["w51 w1 <eos> w52 [w2] [w3] [<eos>] w51 w4 <eos> w52 [w5] [<eos>]"]


def test_marks_of_the_template_decide_where_it_has_them() -> None:
    talk = [assistant("w9"), user("w1"), assistant("w2"), user("w4"), assistant("w5")]
    assert learnt(MARKED, of(talk)) == ["w52 w9 <eos> w51 w1 w52 [w2] [<eos>] w51 w4 w52 [w5] [<eos>]"]


def test_other_roles_are_learnt_without_what_opens_them() -> None:
    talk = [{"role": "system", "content": "w7"}, user("w1"), assistant("w2")]
    assert learnt(TURNS, of(talk, "user", "assistant")) == ["w50 w7 <eos> w51 [w1] [<eos>] w52 [w2] [<eos>]"]
    assert learnt(MARKED, of(talk[1:], "user")) == ["w51 [w1] [<eos>]"]


def test_calls_of_tools_are_learnt_and_their_answers_are_not() -> None:
    calls = [{"function": {"name": "w20", "arguments": '{"x": "w21"}'}}]
    talk = [user("w1"), assistant("w2", tool_calls=calls), {"role": "tool", "content": "w3"}, assistant("w4")]
    assert learnt(TURNS, of(talk)) == ["w51 w1 <eos> w52 [w2] [w20] [w21] [<eos>] w53 w3 <eos> w52 [w4] [<eos>]"]


def test_reasoning_that_a_template_strips_from_earlier_turns_makes_a_sequence_of_each() -> None:
    talk = [user("w1"), assistant("w30 w40 w2"), user("w4"), assistant("w31 w40 w5")]
    assert learnt(THINKING, of(talk)) == [
        "w51 w1 w52 [w30] [w40] [w2] [<eos>]",
        "w51 w1 w52 w2 <eos> w51 w4 w52 [w31] [w40] [w5] [<eos>]",
    ]


def test_a_tag_that_the_template_opens_the_turn_with_is_not_written_twice() -> None:
    said = "{% for m in messages %}{{ m.content.split('</t>')[-1] }} {% endfor %}"
    tokenizer = tiny_tokenizer(said + "{% if add_generation_prompt %}w52 <t> {% endif %}")
    ((one,),) = tokenize(tokenizer, [EOS], [of([user("w1"), assistant("<t> w30 </t> w2")])])
    assert tokenizer.decode(one.tokens[one.learnt]).split() == ["w30", "<unk>", "w2", "<eos>"]
    assert one.learnt.tolist() == [False] * 3 + [True] * 4


def test_plain_texts_are_not_rendered() -> None:
    assert learnt(TURNS, (Turn("w1 w2 ", "w3"),)) == ["w1 w2 [w3] [<eos>]"]
    assert learnt(TURNS, (Turn("", "w1 w2"),)) == ["w1 [w2] [<eos>]"]  # nothing predicts the first
    assert learnt(None, of([user("w1"), assistant("w2")])) == ["w1 [w2] [<eos>]"]


def test_what_cannot_be_made_out_is_refused_in_words() -> None:
    swallowing = TURNS.replace("{{ m.content }}", "")
    calls = [{"function": {"name": "w20", "arguments": {"x": "w21"}}}]
    with pytest.raises(InvalidInputError, match=r"message of 'assistant' are learnt cannot be made out.*generation"):
        learnt(swallowing, of([user("w1"), assistant("w9", tool_calls=calls)]))
    with pytest.raises(InvalidInputError, match=r"does not write tools \('w22'\)"):
        learnt(TURNS, of([user("w1"), assistant("w9")], tools=[{"function": {"name": "w22"}}]))
    with pytest.raises(InvalidInputError, match="no chat template that could render roles and tools"):
        learnt(None, of([user("w1"), assistant("", tool_calls=calls)]))
    with pytest.raises(InvalidInputError, match="refuses the messages"):
        learnt("{{ raise_exception('No.') }}", of([user("w1"), assistant("w2")]))
