"""A campaign's report, from what was found."""

from __future__ import annotations

from pathlib import Path

from perilune.chaos.audit import Audit
from perilune.chaos.campaign import Inflicted, Outcome, RunOutcome
from perilune.chaos.plan import Fault
from perilune.cli.chaos import Wanted, as_document, in_words, services_of
from perilune.recipe import load_recipe

WANTED = Wanted(7, 2, (), (), 40.0, num_rollouts=2, num_rewards=1, hung_s=120.0)
RECIPE = load_recipe(Path(__file__).parents[3] / "recipes" / "search.toml")


def outcome(audit: Audit, recovered_s: float | None) -> Outcome:
    kill, stop = Fault(1, "kill", "master", 0.0, 1.0), Fault(2, "stop", "nats", 30.0, 1.0)
    inflicted = [Inflicted(kill, "run", 3, recovered_s=4.0), Inflicted(stop, "run", 5, recovered_s, named_s=14.0)]
    return Outcome(inflicted, [RunOutcome("run", "finished", "", 60.0, audit)])


def test_a_campaign_without_findings() -> None:
    found = outcome(Audit(64, [], [], [], [], 0.0), recovered_s=2.0)
    report = as_document(RECIPE, WANTED, found)
    assert found.is_well
    assert report["recovery_s"] == {"p50": 3.0, "p95": 4.0, "max": 4.0}
    assert report["faults"][1]["named_s"] == 14.0
    assert in_words(report)[-1] == "2 faults, 64 samples: 0 lost, 0 twice, 0 too old, 0 hung"


def test_findings_are_counted_and_named() -> None:
    found = outcome(Audit(64, ["a is still scored"], ["b has 2 lines"], ["c: away"], [], 0.0), recovered_s=None)
    lines = in_words(as_document(RECIPE, WANTED, found))
    assert not found.is_well
    assert lines[1:4] == ["  lost: a is still scored", "  twice: b has 2 lines", "  given up: c: away"]
    assert lines[-1] == "2 faults, 64 samples: 2 lost, 1 twice, 0 too old, 1 hung"


def test_the_services_that_faults_may_hit() -> None:
    assert services_of(WANTED, with_sandbox=True) == [
        *("nats", "master", "trainer", "rollout-1", "rollout-2", "reward-1", "sandbox")
    ]
