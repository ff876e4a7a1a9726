"""What can be known of a recipe is said before anything is started: every mistake, by its key, with a hint."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from perilune.errors import RecipeError
from perilune.images import encode_png
from perilune.objectives.grpo import Grpo
from perilune.recipe import check_recipe, load_recipe, toml
from perilune.recipe.files import settled
from perilune.recipe.preflight import load_checked, nearest, recipe_mistakes
from services.master.preflight import check_submission
from tests.unit.test_recipe import RECIPES, minimal

CREATED = {"create": {"task": "search", "max_positions": 128}}
HELD = {"type": "grpo", "kl_weight": 0.1}
COUNTING = {"prompts": {"source": "task", "name": "counting"}}
SEARCH = minimal(model=CREATED, rollout={"max_tokens": 72})


def staged(**stage: Any) -> dict[str, Any]:
    return {"stages": [stage]}


def written(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "recipe.toml"
    path.write_text(toml.dumps(document), encoding="utf-8")
    return path


def mistakes(folder: Path, **changes: Any) -> list[str]:
    """What is said of a recipe, without the heading; nothing if it is right."""
    try:
        load_checked(written(folder, SEARCH | changes))
    except RecipeError as error:
        return [line.strip() for line in str(error).splitlines()[1:]]
    return []


def graders(*tables: dict[str, Any]) -> dict[str, Any]:
    return {"graders": list(tables)}


def test_a_stage_takes_no_key_of_another_kind(tmp_path: Path) -> None:
    foreign, absent = mistakes(tmp_path, **staged(type="sft", path="a.jsonl", task="search"))
    assert foreign.startswith("stages.0.task: no such key; ")
    assert absent.startswith("stages.0.path: cannot read ")


# Not those that need another package, or begin from what the recipes beside them make (tests/unit/test_long2short.py).
ON_THEIR_OWN = [path for path in RECIPES if path.stem != "vllm" and path.parent.name != "long2short"]


@pytest.mark.parametrize("path", ON_THEIR_OWN, ids=lambda path: path.stem)
def test_every_shipped_recipe_passes_and_its_print_is_the_same_recipe(path: Path, tmp_path: Path) -> None:
    recipe = load_checked(path)
    again = tmp_path / "again.toml"
    again.write_text(toml.dumps(recipe.model_dump(mode="json")), encoding="utf-8")
    assert load_recipe(again) == recipe


def test_a_right_recipe_has_no_mistakes(tmp_path: Path) -> None:
    assert mistakes(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"reward": graders({"name": "exakt"})},
            "reward.graders.0.name: there is no grader 'exakt'; did you mean 'exact'",
        ),
        (
            {"reward": graders({"name": "exact", "options": {"markr": "x"}})},
            "reward.graders.0.options.markr: exact has no such option; did you mean 'marker'?",
        ),
        (
            {"reward": graders({"name": "exact"}, {"name": "numeric", "options": {"tolerance": "small"}})},
            "reward.graders.1.options.tolerance: input should be a valid number",
        ),
        (
            {"reward": graders({"name": "regex", "options": {"pattern": "("}})},
            "reward.graders.0.options.pattern: no regular expression",
        ),
        (
            {"reward": graders({"name": "length", "options": {"at_least": 5, "at_most": 3}})},
            "reward.graders.0.options: at_least 5 is more than at_most 3",
        ),
        (
            {"reward": graders({"name": "judge"})},
            "reward.graders.0.name: asks a judge, and the reward service has none",
        ),
        (
            {"model": {"create": {"task": "serch"}}},
            "model.create.task: there is no task 'serch'; did you mean 'search'",
        ),
        ({"model": {"create": {"task": "sums"}}}, "prompts.name: a model made for 'sums' has no words for 'search'"),
        (
            {"prompts": {"source": "task", "name": "serch"}},
            "prompts.name: there is no task 'serch'; did you mean 'search'",
        ),
        (
            {"prompts": {"source": "reasoning-gym", "name": "chain_summ", "num_train": 5, "num_heldout": 5}},
            "prompts.name: reasoning-gym has no dataset 'chain_summ'; near are chain_sum",
        ),
        ({"prompts": {"source": "jsonl", "path": "nowhere.jsonl"}}, "nowhere.jsonl"),
        (staged(type="warmup", task="serch"), "stages.0.task: there is no task 'serch'"),
        (staged(type="rlhf"), "stages.0: the key 'type' says 'rlhf'; known are 'warmup', 'sft', 'dpo'"),
        (staged(task="search"), "stages.0: the key 'type' is required and missing"),
        (staged(type="warmup"), "stages.0.task: is required and missing"),
        (staged(type="sft", path=[]), "stages.0.path: value should have at least 1 item"),
        (staged(type="warmup", task="search", when="between"), "stages.0.when: input should be 'before' or 'after'"),
        ({"warmup": {"task": "search"}}, 'warmup: has moved; write [[stages]] with type = "warmup"'),
        (
            staged(type="warmup", task="search", options={"patienze": 3}),
            "stages.0.options.patienze: search has no such option; did you mean 'patience'?",
        ),
        (
            staged(type="warmup", task="search", options={"num_numbers": 99}),
            "stages.0.options: do not fit the task 'search'",
        ),
        (staged(type="sft", path="nowhere.jsonl"), "stages.0.path: cannot read nowhere.jsonl"),
        ({"model": CREATED | {"chat_template": "nowhere.jinja"}}, "model.chat_template: cannot read nowhere.jinja"),
        (
            {"model": CREATED | {"chat_template": "{{ messages }}", "template_arguments": {"thinks": False}}},
            "model.template_arguments: the model's chat template takes no argument 'thinks'",
        ),
        ({"model": {"path": "package:llm_nowhere"}}, "model.path: the package 'llm_nowhere' is not installed"),
        (
            {"trainer": {"num_iterations": 1, "objective": HELD | {"frozen_model": "runs/nowhere/model"}}},
            "trainer.objective.frozen_model: there is no folder 'runs/nowhere/model'",
        ),
        ({"model": {"path": "runs/nowhere/model"}}, "model.path: there is no folder 'runs/nowhere/model'"),
        (
            {"model": {"path": "nobody/nowhere"}},
            "model.path: there is no folder 'nobody/nowhere', and no model of that",
        ),
        ({"rollout": {"max_tokens": 72, "stop": [""]}}, "rollout.stop.0: string should have at least 1 character"),
        (
            {"rollout": {"max_tokens": 72, "environment": {"type": "calculator", "end": ""}}},
            "rollout.environment.end: string should have at least 1 character",
        ),
        (
            {"prompts": {"source": "task", "name": "search", "sampler": {"type": "curriculum"}}},
            "prompts.sampler.type: prompts.sampler.type = 'curriculum' needs labels",
        ),
        (
            {"prompts": {"source": "task", "name": "search", "options": {"num_numbers": 99}}},
            "prompts.options: do not fit task 'search': num_numbers must be 2 to 7",
        ),
        (
            {"trainer": {"num_iterations": 1, "adapter": {"targets": ["lm_head"]}}},
            "trainer.adapter.targets.0: lm_head is tied to the embedding",
        ),
        ({"rollout": {"max_tokens": 128}}, "rollout.max_tokens: 128 tokens of a response do not fit beside a prompt"),
        (
            {"rollout": {"max_tokens": 120}},
            "rollout.max_tokens: 120 tokens of a response do not fit behind a prompt of",
        ),
        (
            {"evaluation": {"num_problems": 501}},
            "evaluation.num_problems: 501 problems are more than the 500 prompts that are held out",
        ),
        ({"evaluation": {"modes": ["greedy", "greedy"]}}, "evaluation.modes: names a mode twice"),
        (
            {"rollout": {"max_tokens": 72, "environment": {"type": "calculater"}}},
            "rollout.environment: the key 'type' says 'calculater'; known are 'calculator', 'sandbox', 'guess'",
        ),
        (
            {"rollout": {"max_tokens": 72, "environment": {"type": "calculator", "cal": "x"}}},
            "rollout.environment.cal: no such key; did you mean 'call'?",
        ),
        (
            {"rollout": {"max_tokens": 72, "environment": {"type": "sandbox", "max_chars": "many"}}},
            "rollout.environment.max_chars: input should be a valid integer",
        ),
        (
            {"trainer": {"num_iterations": 1, "adapter": {"targets": ["q_proj", "lm_head"]}}},
            "trainer.adapter.targets.1: lm_head is tied to the embedding",
        ),
        (
            {"trainer": {"num_iterations": 1, "adapter": {"targets": ["q_proj", "query"]}}},
            "trainer.adapter.targets.1: no layer is called 'query'",
        ),
        (
            {"prompts": {"source": "task", "name": "search", "render": {}}},
            "prompts.render: shows images, and the model reads text only: write a [model.create.vision] table",
        ),
        (
            COUNTING | {"model": {"create": {"task": "counting", "max_positions": 128}}},
            "prompts.name: shows images, and the model reads text only",
        ),
        (
            COUNTING | {"model": {"create": {"task": "counting", "max_positions": 96, "vision": {}}}},
            "rollout.max_tokens: 72 tokens of a response do not fit behind a prompt of 28",  # <bos>, 16 slots, 11 words
        ),
        ({"rollout": {"max_tokens": 72, "engine": {"type": "sglang"}}}, "rollout.engine: sglang is not installed for "),
    ],
)
def test_what_a_recipe_asks_for_and_cannot_have_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nothing answers there
    (line,) = mistakes(tmp_path, **changes)
    assert said in line


def test_all_mistakes_are_named_at_once_those_of_the_file_too(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        reward=graders({"name": "exakt", "wait": 2}, {"name": "numeric", "options": {"tol": 1, "tolerance": "x"}}),
        rollout={"max_tokens": "many", "environment": {"type": "no"}},
        trainer={"num_iterations": 1, "objective": {"tua": 1}},
    )
    assert [line.partition(": ")[0] for line in found] == [
        "rollout.max_tokens",
        "rollout.environment",
        "reward.graders.0.wait",
        "trainer.objective.tua",
        "reward.graders.0.name",
        "reward.graders.1.options.tol",
        "reward.graders.1.options.tolerance",
    ]


def model_folder(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 64} | config))
    (folder / "tokenizer.json").write_text("{}")
    tensors = {"model.layers.0.self_attn.q_proj.weight": np.zeros((2, 2), np.float32)}
    save_file(tensors | {"model.norm.weight": np.zeros(2, np.float32)}, folder / "model.safetensors")
    return folder


def test_a_models_files_are_looked_at(tmp_path: Path) -> None:
    model = {"path": str(model_folder(tmp_path))}
    assert mistakes(tmp_path, model=model, rollout={"max_tokens": 63}) == []
    (said,) = mistakes(tmp_path, model=model, rollout={"max_tokens": 64})
    assert said.startswith("rollout.max_tokens: 64 tokens of a response do not fit beside a prompt into the model's")
    adapted = {"num_iterations": 1, "adapter": {"targets": ["q_proj", "v_proj", "norm"]}}
    found = mistakes(tmp_path, model=model, rollout={"max_tokens": 9}, trainer=adapted)
    assert [line.partition(": ")[0] for line in found] == ["trainer.adapter.targets.1", "trainer.adapter.targets.2"]
    model_folder(tmp_path, text_config={"max_position_embeddings": 32})
    assert mistakes(tmp_path, model=model, rollout={"max_tokens": 40})
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        (tmp_path / name).unlink()
        (said,) = mistakes(tmp_path, model=model, rollout={"max_tokens": 9})
        assert said.startswith(f"model.path: the folder {tmp_path} has no ")


def test_rows_with_images_are_for_a_model_that_sees(tmp_path: Path) -> None:
    image = "data:image/png;base64," + b64encode(encode_png(Image.new("RGB", (4, 4)))).decode()
    (tmp_path / "p.jsonl").write_text(json.dumps({"question": "which", "answer": "1", "image": image}) + "\n" * 2)
    with open(tmp_path / "p.jsonl", "a") as file:
        file.write(json.dumps({"question": "two", "answer": "1"}))
    prompts = {"source": "jsonl", "path": str(tmp_path / "p.jsonl"), "num_heldout": 1}
    (line,) = mistakes(tmp_path, prompts=prompts)
    assert line.startswith("prompts.images: 1 of 1 prompts have images, and the model reads text only")
    assert not mistakes(tmp_path, prompts=prompts | {"images": []})
    assert not mistakes(tmp_path, prompts=prompts, model={"create": CREATED["create"] | {"vision": {}}})


def test_held_out_problems_that_are_not_numbered_are_all_there_are_up_to_500() -> None:
    asked = check_recipe(minimal()).evaluation.num_asked
    assert (asked(20), asked(10_000)) == (20, 500)


def test_the_master_names_what_it_can_know() -> None:
    document = SEARCH | staged(type="warmup", task="nothing") | {"evaluation": {"num_problems": 501}}
    with pytest.raises(RecipeError) as caught:
        check_submission(check_recipe(document))
    assert [line.strip().partition(": ")[0] for line in str(caught.value).splitlines()[1:]] == [
        "stages.0.task",
        "evaluation.num_problems",
    ]


def test_what_the_recipe_alone_decides_needs_nothing_heavy() -> None:
    assert recipe_mistakes(check_recipe(SEARCH)) == []
    assert nearest("exakt", ["exact", "math"]) == "did you mean 'exact'?"
    assert nearest("zzz", ["exact", "math"]) == "known are exact, math"
    assert "services.rollout.torch_engine" not in sys.modules


@pytest.mark.parametrize(
    "value",
    ["", "a\nb", 'q"q', "tab\t", "\x7f\x00\x1f", "ünïcødé 🙂 \u2028", "\\", "# no comment", "'''", "{x}", 0, -7, 1e-05,
     0.1, 1e22, True, False, "true", "1"],
)  # fmt: skip
def test_options_come_back_from_toml_as_they_were(tmp_path: Path, value: str | float | bool) -> None:
    document = minimal(reward=graders({"name": "exact", "options": {"a b.c": value, "plain": value}}))
    if isinstance(value, str):
        document["description"] = value
    recipe = check_recipe(document)
    read = load_recipe(written(tmp_path, recipe.model_dump(mode="json")))
    assert read == recipe
    options = read.reward.graders[0].options
    assert [type(option) for option in options.values()] == [type(value)] * 2


def test_the_path_of_a_frozen_model_is_absolute_from_the_submission_on(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for written_as, kept in (("model", str(tmp_path / "model")), ("someone/on-the-hub", "someone/on-the-hub")):
        recipe = check_recipe(
            SEARCH | {"trainer": {"num_iterations": 1, "objective": HELD | {"frozen_model": written_as}}}
        )
        assert settled(recipe, tmp_path).trainer.objective == Grpo(**HELD, frozen_model=kept)
