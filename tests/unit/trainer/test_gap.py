"""When a difference between engine and trainer is no rounding any more."""

from __future__ import annotations

import pytest

from services.trainer.gap import gap_limit, gap_warning
from tests.unit.trainer.models import TINY, recipe


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, 0.02),
        ({"model": {"create": TINY, "dtype": "bfloat16"}}, 1.0),
        ({"rollout": {"engine": {"quantization": "int8"}}}, 1.0),
        ({"rollout": {"engine": {"type": "vllm", "context_at_swap": "keep"}}}, 1.0),
        ({"precision": "bf16"}, 1.0),
    ],
)
def test_what_is_rounding_depends_on_what_is_rounded(changes: dict, limit: float) -> None:
    table = recipe(**changes)
    assert gap_limit(table) == limit
    assert not gap_warning(table, {"engine_gap": limit})
    assert f"up to {3 * limit:.2g} nats" in gap_warning(table, {"engine_gap": 3 * limit})
    assert not gap_warning(table, {})
