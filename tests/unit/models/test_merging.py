"""Merging by hand, on numbers that can be looked through; and what cannot be merged, by name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from perilune.errors import InvalidInputError
from perilune.models.merging import MergeSettings, average, merged, slerp, ties
from perilune.recipe import CreateModel
from services.trainer.merging import merge
from services.trainer.policy.created import create_policy
from tests.unit.trainer.models import TINY

A, B, C = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([3.0, -2.0, 0.0]), torch.tensor([5.0, 0.0, 0.0])


def test_averages() -> None:
    assert average([A, B, C], MergeSettings()).tolist() == [3.0, 0.0, -1.0]
    assert average([A, B], MergeSettings(weights=(3.0, 1.0))).tolist() == [1.5, 1.0, -2.25]


def test_slerp_goes_along_the_arc() -> None:
    x, y = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    assert slerp([x, y], MergeSettings(t=1 / 3)).tolist() == pytest.approx([2 * math.cos(math.pi / 6), 1.0])
    assert slerp([x, y], MergeSettings(t=0.0)).tolist() == pytest.approx([2.0, 0.0])
    assert slerp([x, 3 * x], MergeSettings()).tolist() == [4.0, 0.0]  # a line, where there is no arc
    assert slerp([x, torch.zeros(2)], MergeSettings(t=0.25)).tolist() == [1.5, 0.0]


def test_ties_trims_elects_and_means() -> None:
    base = torch.ones(4)
    changes = torch.tensor([[4.0, -3.0, 0.1, 0.0], [2.0, 5.0, 0.2, 0.0], [0.3, -1.0, 6.0, 0.0]])
    # Half of each: [4, -3, 0, 0], [2, 5, 0, 0], [0, -1, 6, 0]. Signs of the sums: +, +, +.
    found = ties(list(base + changes), MergeSettings(density=0.5), base)
    assert found.tolist() == pytest.approx([1 + 3, 1 + 5, 1 + 6, 1])
    # With weights 1, 1, 4 the second sum is -3 + 5 - 4 = -2: the mean of -3 and -1 by 1 : 4 is -1.4.
    found = ties(list(base + changes), MergeSettings(weights=(1.0, 1.0, 4.0), density=0.5), base)
    assert found.tolist() == pytest.approx([4, 1 - 1.4, 7, 1])


def test_counters_are_not_averaged() -> None:
    states = [{"w": A, "n": torch.tensor(1)}, {"w": B, "n": torch.tensor(3)}]
    assert merged("average", states, MergeSettings())["n"] == 1


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("merge")
    kinds = {
        "long": {},
        "short": {},
        "wide": {"hidden_size": 64},
        "deep": {"num_layers": 3},
        "heads": {"num_heads": 8, "num_kv_heads": 4},
        "other": {"task": "arithmetic"},
    }
    for number, (name, changes) in enumerate(kinds.items()):
        create_policy(CreateModel.model_validate(TINY | changes), seed=number).save(root / name)
    return {name: str(root / name) for name in kinds}


def test_the_average_of_two_models_is_one_that_others_load(folders: dict[str, str], tmp_path: Path) -> None:
    merge([folders["long"], folders["short"]], tmp_path / "out", "average", MergeSettings())
    long, short, out = (
        load_file(Path(path) / "model.safetensors") for path in (folders["long"], folders["short"], tmp_path / "out")
    )
    assert all(torch.equal(out[name], (long[name] + short[name]) / 2) for name in out)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").num_parameters() > 0
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ("wide", r"wide cannot be merged with .*long: its tensor \S+ has the shape .*64"),
        ("deep", r"deep cannot be merged with .*long: it has the tensor model\.layers\.2\S+, which the first has not"),
        ("heads", r"heads cannot be merged with .*long: its configuration has head_dim = \d+, and the first's"),
        ("other", r"other cannot be merged with .*long: its (tensor \S+ has the shape|tokenizer is another)"),
    ],
)
def test_models_that_differ_are_refused_by_name(
    folders: dict[str, str], tmp_path: Path, other: str, expected: str
) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        merge([folders["long"], folders[other]], tmp_path / "out", "average", MergeSettings())
    assert not (tmp_path / "out").exists()


def test_another_tokenizer_of_the_same_size_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    policy = create_policy(CreateModel.model_validate(TINY), seed=5)
    vocabulary = policy.tokenizer.get_vocab()
    policy.save(tmp_path / "renamed")
    file = tmp_path / "renamed" / "tokenizer.json"
    word = next(word for word in vocabulary if word.isalpha() and len(word) > 3)
    file.write_text(file.read_text().replace(f'"{word}":', '"zzzz":'))
    with pytest.raises(
        InvalidInputError, match=r"renamed cannot be merged .* differ in the token '(zzzz|" + word + ")'"
    ):
        merge([folders["long"], str(tmp_path / "renamed")], tmp_path / "out", "average", MergeSettings())


@pytest.mark.parametrize(
    ("count", "method", "settings", "base", "expected"),
    [
        (1, "average", MergeSettings(), None, "two models or more"),
        (3, "slerp", MergeSettings(), None, "slerp lies between two models, and 3"),
        (2, "ties", MergeSettings(), None, "ties needs --base"),
        (2, "average", MergeSettings(), "long", "--base is for ties"),
        (2, "weighted", MergeSettings(), None, "a --weight for each model"),
        (2, "weighted", MergeSettings((1.0,)), None, "1 weights for 2 models"),
        (2, "weighted", MergeSettings((1.0, -1.0)), None, "not negative"),
        (2, "weighted", MergeSettings((1.0, math.nan)), None, "finite numbers"),
        (2, "average", MergeSettings((1.0, 1.0)), None, "average takes no weights"),
        (2, "slerp", MergeSettings(t=1.5), None, "between 0 and 1"),
    ],
)
def test_what_does_not_fit_the_method_is_said(
    tmp_path: Path, count: int, method: str, settings: MergeSettings, base: str | None, expected: str
) -> None:
    with pytest.raises(InvalidInputError, match=expected):
        merge(["somewhere"] * count, tmp_path / "out", method, settings, base)
