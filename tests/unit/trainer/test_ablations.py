"""The ablations in miniature: every objective for a few iterations, and one claim from its runs to its page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest

from benchmarks.ablations import __main__ as command
from benchmarks.ablations.claims import CLAIMS, Comparison, Variant, find_claim
from benchmarks.ablations.effects import Effect, effect_of, verdict_of
from benchmarks.ablations.loop import Loop, rounded
from benchmarks.ablations.page import found_of
from benchmarks.ablations.store import Store, run_id
from perilune.objectives import ObjectiveTable
from perilune.objectives.correction import Correction
from services.trainer.versions.snapshot import raw_tensors
from tests.unit.trainer.models import tiny_policy

pytestmark = [pytest.mark.slow, pytest.mark.ci]

SMALL = (
    "model.create.hidden_size=32",
    "model.create.intermediate_size=32",
    "stages.0.num_steps=3",
    "rollout.prompts_per_iteration=4",
    "rollout.group_size=3",
    "rollout.max_tokens=10",
    "trainer.num_iterations=2",
    "trainer.steps_per_iteration=2",
    "evaluation.num_problems=4",
)
ALL_KINDS = [get_args(kind.model_fields["type"].annotation)[0] for kind in get_args(get_args(ObjectiveTable)[0])]
KINDS = [kind for kind in ALL_KINDS if kind != "distill"]  # which needs a teacher, a service that the loop has not


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("versions")


def short_run(cache: Path, objective: dict[str, Any], bits: int | None = None, **overrides: Any) -> dict[str, Any]:
    recipe = Variant({"trainer.objective": objective, **overrides}).recipe(0, cache, SMALL)
    return Loop(recipe, cache, bits).run()


@pytest.mark.parametrize("kind", KINDS)
def test_every_objective_runs_for_a_few_iterations(cache: Path, kind: str) -> None:
    run = short_run(cache, {"type": kind})
    assert [each["version"] for each in run["evaluations"]] == [0, 2]
    for metrics in run["iterations"]:
        assert {"entropy", "grad_norm", "hidden_grad_variance", "mixed_groups", "ratio_second_moment"} <= metrics.keys()
        assert all(math.isfinite(value) for value in metrics.values())
        assert metrics["ratio_effective_share"] > 0.9  # the engine computes the policy that is trained


@pytest.mark.parametrize("correction", get_args(Correction))
def test_every_correction_runs_on_rounded_weights(cache: Path, correction: str) -> None:
    run = short_run(cache, {"type": "k15", "correction": correction}, bits=3)
    first = run["iterations"][0]
    assert first["importance_mean"] > 0
    assert first["ratio_kl"] > 1e-5  # rounding shows


@pytest.mark.parametrize("segments", ["current", "all"])
def test_what_is_unfinished_goes_on_in_the_next_iteration(cache: Path, segments: str) -> None:
    """Ten tokens at most, four an iteration, and the last iteration leaves nothing."""
    overrides = {"rollout.budget_tokens": 4, "rollout.max_staleness": 2, "trainer.segments": segments}
    recipe = Variant(overrides).recipe(0, cache, [*SMALL, "trainer.num_iterations=4"])
    loop = Loop(recipe, cache)
    metrics = [loop.iterate(number) for number in range(4)]
    assert metrics[0]["num_groups"] < 4
    assert sum(each["num_groups"] for each in metrics) == 16
    assert loop._open == []
    oldest = max(each.get("staleness_max", 0) for each in metrics)
    assert (oldest > 0) if segments == "all" else (oldest <= 2)


def test_rounding_leaves_few_values_in_a_row() -> None:
    exact = raw_tensors(tiny_policy().model, __import__("torch").float32)
    from perilune.models.tensors import torch_tensor

    for before, after in zip(exact, rounded(exact, 3), strict=True):
        one = torch_tensor(after)
        if one.ndim == 2:
            assert len(one[0].unique()) <= 7
            assert (one - torch_tensor(before)).abs().max() <= torch_tensor(before).abs().max() / 6 + 1e-6
    assert rounded(exact, None) == exact


def test_a_claim_goes_from_its_runs_to_the_page_and_nothing_runs_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "data", "out")]
    arguments = ["negative-gradients", "--seeds=2", *places, *(f"--set={each}" for each in SMALL)]
    (tmp_path / "out").mkdir()
    command.main(arguments)
    assert "0 of 6 runs are there" in capsys.readouterr().out
    files = {file: file.read_bytes() for file in (tmp_path / "runs").glob("*.json")}
    page = (tmp_path / "out" / "ablations.md").read_text()
    assert len(files) == 6
    assert "| k15 | 2 | " in page
    assert "k15 against rest: mean held-out accuracy after version 0" in page
    assert "Not run yet." in page
    assert (tmp_path / "out/pictures/ablations/negative-gradients.svg").stat().st_size > 5_000
    command.main(arguments)
    assert "6 of 6 runs are there" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in files} == files
    assert (tmp_path / "out" / "ablations.md").read_text() == page


def test_a_run_that_failed_is_reported_and_not_counted(tmp_path: Path) -> None:
    claim, store = find_claim("negative-gradients"), Store(tmp_path)
    recipe = claim.variants["rest"].recipe(0, tmp_path)
    store.save(run_id(recipe, None), {"label": "x", "failed": "the gradient's norm is nan"})
    found = found_of(claim, store, tmp_path)
    assert found.failed == ["rest, seed 0: the gradient's norm is nan"]
    assert found.effect(claim.comparisons[0]) is None
    assert found.verdict(claim.comparisons[0]) == "not run yet"


def test_effects_by_hand() -> None:
    effect = effect_of([0.1, 0.2, 0.3, 0.1, 0.2])
    assert (effect.median, effect.num_seeds) == (0.2, 5)
    assert 0.1 <= effect.low < effect.high <= 0.3
    assert effect.p_value == pytest.approx(2 / 32)  # all signs alike, either way
    assert effect_of([0.4]) == Effect(0.4, 0.4, 0.4, 1.0, 1)
    assert effect_of([0.1, -0.1, 0.0]).p_value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("effect", "expected", "verdict"),
    [
        ((0.1, 0.05, 0.2), "more", "reproduced in kind"),
        ((0.1, -0.05, 0.2), "more", "not at this scale"),
        ((0.01, 0.005, 0.015), "more", "not at this scale"),  # clear of zero, and little
        ((-0.1, -0.2, -0.05), "more", "opposite"),
        ((-0.1, -0.2, -0.05), "less", "reproduced in kind"),
        ((0.0, -0.03, 0.03), "same", "reproduced in kind"),
        ((0.0, -0.1, 0.1), "same", "not at this scale"),  # too wide to say
        ((0.1, 0.05, 0.2), "same", "opposite"),
    ],
)
def test_verdicts(effect: tuple[float, float, float], expected: Any, verdict: str) -> None:
    assert verdict_of(Effect(*effect, p_value=0.25, num_seeds=3), expected, "area") == verdict
    assert verdict_of(Effect(*effect, p_value=0.5, num_seeds=2), expected, "area") == "not run yet"


def test_the_table_of_claims_is_sound(tmp_path: Path) -> None:
    """Every comparison is of variants that there are, and every variant is a recipe."""
    for claim in CLAIMS:
        for comparison in claim.comparisons:
            assert isinstance(comparison, Comparison)
            assert comparison.variant in claim.variants
            assert comparison.against in claim.variants or comparison.against == "version 0"
        recipes = {name: variant.recipe(0, tmp_path) for name, variant in claim.variants.items()}
        assert len({run_id(recipe, claim.variants[name].bits) for name, recipe in recipes.items()}) == len(recipes)
