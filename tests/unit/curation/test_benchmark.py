"""The benchmark in miniature: planted faults are found, and good prompts stay."""

from __future__ import annotations

import pytest

from benchmarks.curation import PLANTED, measure


@pytest.mark.slow
@pytest.mark.ci
async def test_planted_faults_are_found() -> None:
    found = await measure(num_good=40, num_planted=2, seed=1, skill=0.6)
    removed = {kind: each["removed"] for kind, each in found.items()}
    assert removed.pop("good") < 0.03  # one of forty
    assert removed == dict.fromkeys(removed, 1.0)
    assert set(PLANTED) < set(removed)
