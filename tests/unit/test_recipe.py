"""Recipes: every shipped one loads, and a mistake is told by its key, what was expected, and the nearest right key."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from perilune.errors import RecipeError
from perilune.objectives.grpo import Grpo
from perilune.objectives.k15 import K15
from perilune.recipe import (
    CalculatorEnvironment,
    EngineBase,
    Recipe,
    SglangEngineTable,
    TorchEngineTable,
    VllmEngineTable,
    check_recipe,
    load_recipe,
    read_stored_recipe,
    recipe_from_json,
    toml,
)

JSONL = {"source": "jsonl", "path": "prompts.jsonl"}
RECIPES = sorted((Path(__file__).parent.parent.parent / "recipes").rglob("*.toml"))


def minimal(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": "small",
        "model": {"path": "somewhere"},
        "prompts": {"source": "task", "name": "search"},
        "reward": {"graders": [{"name": "exact"}]},
        "trainer": {"num_iterations": 3},
    }
    return document | changes


def sampled(**sampler: Any) -> dict[str, Any]:
    return {"source": "task", "name": "search", "sampler": sampler}


def with_objective(**objective: Any) -> dict[str, Any]:
    return minimal(trainer={"num_iterations": 3, "objective": objective})


def mistakes(document: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        check_recipe(document)
    return str(caught.value).splitlines()[1:]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.description, "a recipe says what it is for"
    assert recipe_from_json(recipe.model_dump_json()) == recipe


def test_the_default_recipe_is_shipped() -> None:
    assert "search" in [path.stem for path in RECIPES]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (minimal(trainr={}), "  trainr: no such key; did you mean 'trainer'?"),
        (
            minimal(evaluate=[{"task": "humanevl"}]),
            "  evaluate.0.task: there is no task 'humanevl'; near are humaneval, humaneval-mul; `perilune evaluate "
            "--list` shows all (got 'humanevl')",
        ),
        (
            minimal(trainer={"num_iterations": 3, "objective": {"tua": 1}}),
            "  trainer.objective.tua: no such key; did you mean 'tau'?",
        ),
        (
            minimal(model={"create": {"task": "search", "hiden_size": 8}}),
            "  model.create.hiden_size: no such key; did you mean 'hidden_size'?",
        ),
        (
            minimal(prompts={"source": "jsonl", "path": "p", "anwser": "a"}),
            "  prompts.anwser: no such key; did you mean 'answer'?",
        ),
        (
            minimal(prompts=sampled(type="curriculum", min_dificulty=1)),
            "  prompts.sampler.min_dificulty: no such key; did you mean 'min_difficulty'?",
        ),
        (
            minimal(prompts=sampled(type="uniform", min_difficulty=1)),
            "  prompts.sampler.min_difficulty: no such key; known here are type",
        ),
        (
            minimal(reward={"graders": [{"name": "exact", "wieght": 2}]}),
            "  reward.graders.0.wieght: no such key; did you mean 'weight'?",
        ),
    ],
)
def test_a_misspelt_key_is_answered_with_the_nearest_right_one(document: dict[str, Any], said: str) -> None:
    assert mistakes(document) == [said]


def test_a_key_like_no_other_is_answered_with_the_known_ones() -> None:
    (said,) = mistakes(minimal(evaluation={"qqq": 1}))
    assert said == "  evaluation.qqq: no such key; known here are every, modes, num_problems"


@pytest.mark.parametrize(
    ("document", "key", "expected"),
    [
        (minimal(trainer={"num_iterations": "many"}), "trainer.num_iterations", "valid integer"),
        (
            with_objective(tau=-1),
            "trainer.objective.tau",
            "greater than or equal to 0",
        ),
        (minimal(rollout={"group_size": 1}), "rollout.group_size", "greater than or equal to 2"),
        (
            with_objective(baseline="median"),
            "trainer.objective.baseline",
            "'mean' or 'log_z'",
        ),
        (minimal(reward={"graders": []}), "reward.graders", "at least 1 item"),
        (minimal(name="Not A Name"), "name", "pattern"),
        (minimal(model={"create": {"task": "t", "hidden_size": 10}}), "model.create", "no multiple of num_heads 4"),
        (minimal(model={}), "model", "model.path or a [model.create] table"),
        (minimal(prompts={"source": "nowhere"}), "prompts", "'task', 'reasoning-gym', 'jsonl', 'huggingface', 'file'"),
        (minimal(prompts=JSONL | {"template": "Think."}), "prompts.template", "{question}"),
        (
            minimal(prompts=JSONL | {"sampler": {"type": "curriculum"}}),
            "prompts.sampler.difficulty_label",
            "'difficulty' is none of prompts.labels",
        ),
        (minimal(prompts=sampled(type="curriculum")), "prompts.sampler.type", "needs labels, and task has none"),
        (minimal(prompts=sampled(type="best")), "prompts.sampler", "'uniform', 'prioritized', 'curriculum'"),
        (minimal(prompts=sampled(min_difficulty=1)), "prompts.sampler", "the key 'type' is required and missing"),
        (minimal(prompts=sampled(type="curriculum", warmup_iterations=-1)), "prompts.sampler.warmup_iterations", "0"),
        (minimal(rollout={"engine": "vlm"}), "rollout.engine", "'vlm'; known are 'torch', 'vllm', 'sglang'"),
        (minimal(rollout={"engine": {"type": "vlm"}}), "rollout.engine", "known are 'torch', 'vllm', 'sglang'"),
        (
            minimal(rollout={"engine": {"type": "vllm", "quantization": "int8"}}),
            "rollout.engine.quantization",
            "no such key; known here are context_at_swap, tensor_parallel, type",
        ),
        (
            minimal(rollout={"engine": {"type": "sglang", "context_at_swap": "keep"}}),
            "rollout.engine.context_at_swap",
            "no such key; known here are type",
        ),
        (
            minimal(rollout={"engine": "torch", "quantization": "int8"}),
            "rollout.quantization",
            "has moved; write rollout.engine.quantization, in [rollout.engine]",
        ),
        (
            minimal(rollout={"context_at_swap": "keep"}),
            "rollout.context_at_swap",
            "write rollout.engine.context_at_swap",
        ),
        (minimal(sampling={"strategy": "curriculum"}), "sampling", "has moved; write [prompts.sampler], with `type`"),
    ],
)
def test_a_wrong_value_is_answered_with_what_was_expected(document: dict[str, Any], key: str, expected: str) -> None:
    (said,) = mistakes(document)
    assert said.startswith(f"  {key}: ")
    assert expected in said


def test_an_option_that_is_none_of_the_kinds_is_one_mistake() -> None:
    (said,) = mistakes(minimal(reward={"graders": [{"name": "exact", "options": {"marker": ["x"]}}]}))
    assert said == ("  reward.graders.0.options.marker: an option is text, a number, or true or false (got ['x'])")


def test_every_mistake_is_named_at_once() -> None:
    document = minimal(trainer={"objective": {"tau": "x"}}, sead=1)
    assert mistakes(document) == [
        "  trainer.num_iterations: is required and missing",
        "  trainer.objective.tau: input should be a valid number, unable to parse string as a number (got 'x')",
        "  sead: no such key; did you mean 'seed'?",
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(
        'name = "small"\nmodel.path = "somewhere"\nprompts = { source = "task", name = "search" }\n'
        'reward.graders = [{ name = "exact" }]\ntrainer.num_iterations = 3\n'
    )
    return path


def test_overrides_are_toml_and_apply_after_the_file(file: Path) -> None:
    overrides = [
        "trainer.num_iterations=5",
        "trainer.objective.tau=0.25",
        "rollout.stop=['x', 'y']",
        "description=a bare text",
    ]
    recipe = load_recipe(file, overrides)
    assert (recipe.trainer.num_iterations, recipe.trainer.objective) == (5, K15(tau=0.25))
    assert recipe.rollout.stop == ["x", "y"]
    assert recipe.description == "a bare text"


LISTS = (
    'name = "small"\nmodel.path = "somewhere"\nprompts = { source = "task", name = "search" }\n'
    "trainer.num_iterations = 3\n"
    '[[stages]]\ntype = "warmup"\ntask = "search"\n'
    '[[reward.graders]]\nname = "exact"\n[[reward.graders]]\nname = "format"\nweight = 0.5\n'
)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    path = tmp_path / "lists.toml"
    path.write_text(LISTS)
    return path


def test_an_override_reaches_into_lists_and_removes(lists: Path) -> None:
    overrides = [
        "reward.graders.0.weight=2",
        'reward.graders[1].options.marker="x"',
        "stages=",
        "reward.graders[0].options.marker=answer: 7",
        "evaluation.modes.1=greedy",  # a list that the file leaves out is the default one
        "evaluation.modes.0=",
    ]
    recipe = load_recipe(lists, overrides)
    assert [(g.weight, g.options) for g in recipe.reward.graders] == [
        (2, {"marker": "answer: 7"}),
        (0.5, {"marker": "x"}),
    ]
    assert recipe.stages == []
    assert recipe.evaluation.modes == ["greedy"]
    assert [g.name for g in load_recipe(lists, ["reward.graders.0=", "trainer.objective.tau="]).reward.graders] == [
        "format"
    ]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("description=7", "7"),
        ("description=true", "true"),
        ("description=1979-05-27", "1979-05-27"),
        ("description=[1, 2]", "[1, 2]"),
        ("description={a = 1}", "{a = 1}"),
        ("reward.graders.0.options.marker=['x']", "['x']"),
        ("description=a = 1", "a = 1"),
        ("description=1\nseed = 5", "1\nseed = 5"),
        ("description='7'", "7"),
        ('description=""', ""),
        ("model.path=1e3", "1e3"),
    ],
)
def test_what_looks_like_toml_is_text_where_the_key_takes_text(lists: Path, override: str, value: str) -> None:
    recipe = load_recipe(lists, [override])
    assert value in (recipe.description, recipe.model.path, recipe.reward.graders[0].options.get("marker"))
    assert recipe.seed == 0


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.tau", "write key.path=value"),
        ("=3", "'' is no key"),
        ("trainer..tau=3", "'trainer..tau' is no key"),
        ("name.first=1", "name is a value, not a table"),
        ("trainer.objective.taw=1", "did you mean 'tau'?"),
        ("reward.graders.2.weight=2", "reward.graders has elements 0 to 1; to add one, set the whole list"),
        ("reward.graders.weight=2", "reward.graders is a list; write reward.graders.0.weight for its first element"),
        ("stagess=", "there is no stagess to remove; did you mean 'stages'?"),
        ("trainer.objective.tau=inf", "trainer.objective.tau: input should be a finite number"),
        ("trainer.learning_rate=nan", "trainer.learning_rate: input should be a finite number"),
        ("reward.graders.0.weight=-inf", "reward.graders.0.weight: input should be a finite number"),
        ("trainer.betas=[nan, 0.9]", "trainer.betas.0: input should be a finite number"),
        ("reward.graders.0.options.soft=inf", "reward.graders.0.options.soft: "),
        ("rollout.max_tokens=4_000_000_000", "rollout.max_tokens: input should be less than 2147483648"),
    ],
)
def test_a_wrong_override_says_how_to_write_it(lists: Path, override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)) as caught:
        load_recipe(lists, [override])
    assert len(str(caught.value).splitlines()) <= 2


def test_a_file_that_is_none_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*nothing\.toml: No such file"):
        load_recipe(tmp_path / "nothing.toml")
    (tmp_path / "broken.toml").write_text("name = = 1")
    with pytest.raises(RecipeError, match=r"broken\.toml is no valid TOML: .*line 1"):
        load_recipe(tmp_path / "broken.toml")


def test_evaluations_are_first_last_and_in_between() -> None:
    recipe = Recipe.model_validate(minimal(trainer={"num_iterations": 25}, evaluation={"every": 10}))
    assert [i for i in range(26) if recipe.evaluates_at(i)] == [0, 10, 20, 25]
    ends_only = Recipe.model_validate(minimal(trainer={"num_iterations": 25}))
    assert [i for i in range(26) if ends_only.evaluates_at(i)] == [0, 25]


def test_a_stored_recipe_may_have_keys_of_a_newer_version(caplog: pytest.LogCaptureFixture) -> None:
    newer = minimal(
        name="from-the-future",
        novel={"x": 1},
        prompts={"source": "task", "name": "search", "hue": 3},
        reward={"graders": [{"name": "exact", "shade": 1}]},
        trainer={"num_iterations": 3, "adapter": {"rank": 2, "twist": 1}},
    )
    with pytest.raises(RecipeError, match=r"prompts\.hue: no such key"):
        recipe_from_json(json.dumps(newer))
    for _ in range(3):
        recipe = read_stored_recipe(json.dumps(newer))
    assert recipe.trainer.adapter is not None
    assert recipe.trainer.adapter.rank == 2
    (said,) = caplog.messages
    assert said.endswith("not know: prompts.hue, reward.graders.0.shade, trainer.adapter.twist, novel")


CURRICULUM = {"warmup_iterations": 2, "difficulty_label": "level", "min_difficulty": 0.7}


@pytest.mark.parametrize(
    ("sampling", "sampler"),
    [
        ({}, {"type": "uniform"}),
        (CURRICULUM | {"strategy": "uniform"}, {"type": "uniform"}),  # as it was stored: with the keys of all kinds
        (CURRICULUM | {"strategy": "prioritized"}, {"type": "prioritized"}),
        (CURRICULUM | {"strategy": "curriculum"}, CURRICULUM | {"type": "curriculum"}),
    ],
)
@pytest.mark.parametrize("read", [read_stored_recipe, recipe_from_json])
def test_a_recipe_of_an_earlier_version_means_what_it_meant(
    read: Any, sampling: dict[str, Any], sampler: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    prompts = JSONL | {"labels": ["level"]}
    recipe = read(json.dumps(minimal(prompts=prompts, sampling=sampling)))
    assert recipe == check_recipe(minimal(prompts=prompts | {"sampler": sampler}))
    assert read(recipe.model_dump_json()) == recipe
    assert not caplog.messages


STORED_WARMUP = {"task": None, "path": None, "options": {}, "num_examples": None, "num_steps": 9, "batch_size": 4}


@pytest.mark.parametrize(
    ("warmup", "stages"),
    [
        (None, []),
        ({"task": "search"}, [{"type": "warmup", "task": "search", "learning_rate": 1e-3}]),  # as it was submitted
        (
            STORED_WARMUP | {"task": "search", "options": {"patience": 3}, "learning_rate": 0.5},
            [
                {
                    "type": "warmup",
                    "task": "search",
                    "options": {"patience": 3},
                    "num_examples": 20_000,
                    "num_steps": 9,
                    "batch_size": 4,
                    "learning_rate": 0.5,
                }
            ],
        ),
        (
            STORED_WARMUP | {"path": "a.jsonl"},
            [{"type": "sft", "path": "a.jsonl", "num_steps": 9, "batch_size": 4, "learning_rate": 1e-3}],
        ),
    ],
)
@pytest.mark.parametrize("read", [read_stored_recipe, recipe_from_json])
def test_a_warm_up_of_an_earlier_version_is_a_stage(
    read: Any, warmup: dict[str, Any], stages: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = read(json.dumps(minimal(warmup=warmup)))
    assert recipe == check_recipe(minimal(stages=stages))
    assert read(recipe.model_dump_json()) == recipe
    assert not caplog.messages


def test_versions_are_counted_with_the_stages_after_rl() -> None:
    stages = [{"type": "warmup", "task": "search", "when": when} for when in ("after", "before", "after")]
    recipe = check_recipe(minimal(stages=stages, trainer={"num_iterations": 3}))
    assert recipe.last_version == 5
    assert [found and found[0] for found in map(recipe.stage_from, range(7))] == [None, None, None, 0, 2, None, None]
    assert [recipe.evaluates_at(version) for version in range(6)] == [True, False, False, True, True, True]


@pytest.mark.parametrize(
    ("former", "engine"),
    [
        ({}, TorchEngineTable()),
        ({"engine": "torch", "quantization": "int8", "context_at_swap": "keep"},
         TorchEngineTable(quantization="int8", context_at_swap="keep")),
        ({"quantization": "int8"}, TorchEngineTable(quantization="int8")),
        ({"engine": "vllm", "quantization": "none", "context_at_swap": "keep"},
         VllmEngineTable(context_at_swap="keep")),
        ({"engine": "sglang", "quantization": "none", "context_at_swap": "reread"}, SglangEngineTable()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("read", [read_stored_recipe, recipe_from_json])
def test_an_engine_of_an_earlier_version_is_the_engine_that_it_was(
    read: Any, former: dict[str, Any], engine: EngineBase, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = read(json.dumps(minimal(rollout={"max_tokens": 9, **former})))
    assert (recipe.rollout.engine, recipe.rollout.max_tokens) == (engine, 9)
    assert read(recipe.model_dump_json()) == recipe
    assert not caplog.messages


@pytest.mark.parametrize(
    ("rollout", "changes", "engine"),
    [
        ({}, [], TorchEngineTable()),
        ({"engine": "vllm"}, [], VllmEngineTable()),
        ({"engine": {"quantization": "int8"}}, [], TorchEngineTable(quantization="int8")),
        ({}, ["rollout.engine=vllm"], VllmEngineTable()),
        ({}, ["rollout.engine.type=vllm"], VllmEngineTable()),
        ({"engine": "torch"}, ["rollout.engine.type=sglang"], SglangEngineTable()),
        ({"engine": "vllm"}, ["rollout.engine.context_at_swap=keep"], VllmEngineTable(context_at_swap="keep")),
        ({"engine": {"quantization": "int8"}}, ["rollout.engine=vllm"], VllmEngineTable()),
        ({"engine": "vllm"}, ["rollout.engine="], TorchEngineTable()),
    ],
)
def test_an_engine_is_a_table_or_the_name_of_its_type(
    tmp_path: Path, rollout: dict[str, Any], changes: list[str], engine: EngineBase
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(toml.dumps(minimal(rollout=rollout)), encoding="utf-8")
    assert load_recipe(file, changes).rollout.engine == engine


@pytest.mark.parametrize(
    "changes",
    [
        {"rollout": {"engine": ["torch"], "quantization": "int8"}},
        {"sampling": 3},
        {"sampling": {"strategy": "best"}},
        {"sampling": {}, "prompts": 1},
    ],
)
def test_a_recipe_of_no_version_is_one_error(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        recipe_from_json(json.dumps(minimal(**changes)))


@pytest.mark.parametrize("text", ["", "[]", '{"name": "x"', json.dumps(minimal(rollout={"engine": "abacus"}))])
def test_a_stored_recipe_that_cannot_be_read_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(RecipeError, match="this version cannot read the stored recipe"):
        read_stored_recipe(text)


@pytest.mark.parametrize("cut", [{"top_p": 0.9}, {"top_k": 20}])
def test_what_is_cut_off_in_sampling_cannot_be_trained_on(cut: dict[str, float]) -> None:
    (said,) = mistakes(minimal(rollout=cut))
    assert f"rollout.{next(iter(cut))} cuts off what the policy may say" in said
    check_recipe(minimal(rollout=cut, trainer={"num_iterations": 0}))  # which only evaluates


@pytest.mark.parametrize(
    ("key", "value"),
    [("tau", 0.2), ("baseline", "log_z"), ("correction", "masked"), ("correction_limit", 3), ("effective_share", 0.5)],
)
def test_a_former_key_in_a_file_is_told_its_present_place(key: str, value: object) -> None:
    (said,) = mistakes(minimal(trainer={"num_iterations": 3, key: value}))
    assert said == f"  trainer.{key}: has moved; write trainer.objective.{key}, in [trainer.objective]"


def test_a_former_value_in_a_file_is_told_what_it_is_now() -> None:
    (said,) = mistakes(minimal(trainer={"num_iterations": 3, "segments": "corrected"}))
    assert "trainer.segments: write segments = 'all', and trainer.objective.correction = 'decoupled'" in said


FORMER = {"num_iterations": 3, "tau": 0.3, "baseline": "log_z", "correction_limit": 3.0, "effective_share": 0.5}


@pytest.mark.parametrize(
    ("trainer", "segments", "correction"),
    [
        ({"segments": "corrected", "correction": "masked"}, "all", "masked"),
        ({"segments": "corrected"}, "all", "decoupled"),
        ({"segments": "all", "correction": "masked"}, "all", None),  # which was not used
        ({"segments": "current", "correction": "decoupled"}, "current", None),
    ],
)
def test_a_stored_recipe_with_former_keys_is_the_same_run(
    trainer: dict[str, str], segments: str, correction: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    stored = minimal(rollout={"max_staleness": 1}, trainer=FORMER | trainer)
    read = read_stored_recipe(json.dumps(stored)).trainer
    assert (read.num_iterations, read.segments) == (3, segments)
    assert read.objective == K15(
        tau=0.3, baseline="log_z", correction_limit=3, effective_share=0.5, correction=correction
    )
    assert not caplog.messages  # nothing was ignored


def test_a_stored_recipe_of_now_is_left_alone() -> None:
    recipe = check_recipe(minimal(trainer={"num_iterations": 3, "objective": {"type": "grpo", "clip_high": 0.28}}))
    assert read_stored_recipe(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (
            {"type": "grpo", "tau": 0.1},
            "  trainer.objective.tau: no such key; known here are clip, clip_high, correction, correction_limit, "
            "effective_share, frozen_model, kl_estimator, kl_weight, second_moment, type",
        ),
        ({"type": "grpo", "clipp": 0.1}, "  trainer.objective.clipp: no such key; did you mean 'clip'?"),
        ({"type": "grpo", "clip": 1.5}, "  trainer.objective.clip: input should be less than 1 (got 1.5)"),
        (
            {"type": "rloo", "tau": 0.1},
            "  trainer.objective.tau: no such key; known here are correction, correction_limit, effective_share, "
            "second_moment, type",
        ),
        ({"type": "sft", "tau": 0.1}, "  trainer.objective.tau: no such key; known here are type"),
        (
            {"type": "rloo", "kl_weight": 0.1},
            "  trainer.objective.kl_weight: no such key; known here are correction, "
            "correction_limit, effective_share, second_moment, type",
        ),
    ],
)
def test_each_objective_has_its_own_keys(objective: dict[str, object], said: str) -> None:
    assert mistakes(with_objective(**objective)) == [said]


def test_an_unknown_objective_is_told_those_there_are() -> None:
    (said,) = mistakes(with_objective(type="dpo"))
    assert said.startswith("  trainer.objective")
    assert "'k15', 'grpo', 'rloo'" in said


def test_the_default_objective_needs_no_type(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(Path("recipes/own_prompts.toml").read_text())
    assert load_recipe(path, ["trainer.objective.tau=0.2"]).trainer.objective == K15(tau=0.2)
    assert load_recipe(path, ["trainer.objective.type=grpo"]).trainer.objective == Grpo(type="grpo")


def test_a_former_environment_means_what_it_meant_and_is_refused_in_a_file() -> None:
    former = {"name": "calculator", "max_turns": 4, "options": {"call": "sum"}}
    stored = json.dumps(minimal(rollout={"environment": former}))
    for read in (read_stored_recipe, recipe_from_json):
        found = read(stored).rollout.environment
        assert found == CalculatorEnvironment(type="calculator", max_turns=4, call="sum")
        assert read(read(stored).model_dump_json()).rollout.environment == found
    (said,) = mistakes(minimal(rollout={"environment": former}))
    assert said == "  rollout.environment: the key name has moved; write rollout.environment.type"
    (said,) = mistakes(minimal(rollout={"environment": {"type": "guess", "options": {}}}))
    assert said.startswith(
        "  rollout.environment.options: has moved; write the options into [rollout.environment] itself"
    )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"environment": "env"}, "write both, or neither"),
        ({"environments": ["guess"]}, "write both, or neither"),
        ({"environment": "env", "environments": ["gues"]}, "there is no such environment; known are calculator"),
    ],
)
def test_the_environments_that_rows_may_name_are_those_there_are(keys: dict[str, Any], said: str) -> None:
    (line,) = mistakes(minimal(prompts=JSONL | keys))
    assert said in line


@pytest.mark.parametrize(
    "changes",
    [
        {"rollout": {"group_size": 4097}},
        {"rollout": {"prompts_per_iteration": 10**9}},
        {"rollout": {"prompts_per_iteration": 10_000, "max_staleness": 1000, "asynchronous": True}},
        {"rollout": {"max_refills": 10**8}, "trainer": {"num_iterations": 1, "drop_uniform_groups": True}},
        {"rollout": {"max_running": 1 << 21}},
        {"model": {"create": {"task": "search", "hidden_size": 10**7}}},
        {"model": {"create": {"task": "search", "num_layers": 10**9}}},
    ],
)
def test_what_no_service_can_hold_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        check_recipe(minimal(**changes))
