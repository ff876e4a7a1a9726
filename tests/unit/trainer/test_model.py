"""Version 0: made on the spot, loaded, or missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from perilune.errors import InvalidInputError, NotFoundError
from perilune.models.chat import prompt_ids
from perilune.tasks import search
from services.trainer.policy.created import word_tokenizer
from services.trainer.policy.sources import load_policy, make_policy
from tests.unit.trainer.models import recipe, same_bits, state, tiny_policy


def test_text_goes_through_the_word_tokenizer_unchanged() -> None:
    tokenizer = word_tokenizer(search.VOCABULARY)
    text = search.question(search.problem(0, 0))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(text.split())
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_a_chat_is_bos_and_its_words() -> None:
    tokenizer = word_tokenizer(search.VOCABULARY)
    chat = [{"role": "user", "content": "which two"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", "which", "two"]
    chat += [{"role": "assistant", "content": "none"}, {"role": "user", "content": "?"}]
    ids = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", "which", "two", "none", "<eos>", "?"]


def test_the_seed_decides_the_weights_and_leaves_other_randomness_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = state(tiny_policy(seed=1))
    assert torch.equal(torch.rand(1), expected)
    assert same_bits(first, state(tiny_policy(seed=1)))
    assert not same_bits(first, state(tiny_policy(seed=2)))


def test_a_saved_policy_is_a_hugging_face_folder(tmp_path: Path) -> None:
    policy = tiny_policy()
    policy.save(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "which two"}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    out = model.generate(**ids, max_new_tokens=5, do_sample=False)
    assert out.shape[1] <= 3 + 5
    assert model.generation_config.eos_token_id == policy.eos_token_id == tokenizer.eos_token_id
    assert same_bits(state(policy), state(load_policy(str(tmp_path))))


def test_a_template_of_ones_own_goes_with_the_model(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}{{ closing or '' }}")
    create = {"task": "search", "hidden_size": 8, "num_layers": 1, "num_heads": 2}
    table = {"create": create, "chat_template": str(file), "template_arguments": {"closing": " yes"}}
    make_policy(recipe(model=table)).save(tmp_path / "saved")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert prompt_ids(tokenizer, [{"role": "user", "content": "which"}]) == tokenizer("which yes")["input_ids"]
    with pytest.raises(InvalidInputError, match=r"model\.chat_template: cannot read .*none\.jinja"):
        make_policy(recipe(model=table | {"chat_template": str(tmp_path / "none.jinja")}))


@pytest.mark.parametrize(
    ("path", "says"), [("/no/such/folder", "model.path"), ("package:no_such_package", "pip install")]
)
def test_a_missing_model_says_what_to_do(path: str, says: str) -> None:
    with pytest.raises(NotFoundError, match=says):
        make_policy(recipe(model={"path": path}))
