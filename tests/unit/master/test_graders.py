"""What the master says of graders when a run is submitted: by what its fleet knows, else by what is installed."""

from __future__ import annotations

from typing import Any

import pytest

from perilune.recipe import check_recipe
from services.master.graders import grader_mistakes, unknown_to
from tests.unit.test_preflight import graders
from tests.unit.test_recipe import minimal

KNOWN = {"exact": ["marker", "case"], "polite": ["word"], "away": []}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"name": "exact", "options": {"marker": "x"}}, None),
        ({"name": "polite", "plugin": "h:1", "options": {"word": "x"}}, None),
        ({"name": "away", "options": {"anything": "x"}}, None),
        ({"name": "exakt"}, "reward.graders.0.name: the fleet has no grader 'exakt'; did you mean 'exact'?"),
        (
            {"name": "mine", "plugin": "h:1"},
            "reward.graders.0.name: the fleet has no grader 'mine'; the reward services",
        ),
        ({"name": "exact", "options": {"markr": 1}}, "reward.graders.0.options.markr: exact has no such option; did"),
    ],
)
def test_the_fleets_graders_decide(table: dict[str, Any], said: str | None) -> None:
    found = [str(mistake) for mistake in unknown_to(KNOWN, check_recipe(minimal(reward=graders(table))))]
    assert len(found) == (said is not None)
    assert all(line.startswith(said or "") for line in found)


@pytest.mark.slow
async def test_without_a_fleet_what_is_installed_is_asked_but_not_for_what_another_machine_may_have() -> None:
    recipe = check_recipe(
        minimal(
            reward=graders({"name": "exakt"}, {"name": "numeric", "options": {"tolerance": "x"}}, {"name": "judge"}),
            rollout={"engine": "sglang", "environment": {"type": "guess"}},
        )
    )
    assert [mistake.key for mistake in await grader_mistakes(recipe, [])] == [
        "reward.graders.0.name",
        "reward.graders.1.options.tolerance",
    ]
