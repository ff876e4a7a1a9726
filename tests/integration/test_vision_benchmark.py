"""The benchmark of images, in miniature: both recipes through all services, with what it says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.vision import measured

TINY = (
    "stages.0.num_steps=2",
    "stages.1.num_steps=1",
    "stages.0.batch_size=4",
    "stages.1.batch_size=4",
    "trainer.num_iterations=1",
    "rollout.prompts_per_iteration=4",
    "rollout.group_size=2",
    "evaluation.num_problems=4",
)


@pytest.mark.slow
@pytest.mark.ci
def test_looking_is_measured_with_pictures_and_with_noise(tmp_path: Path) -> None:
    figures = measured("vision", 0, TINY, tmp_path)
    assert figures["seed 0: ledger balanced"].value == 1
    assert 0 <= figures["seed 0: with noise in place of pictures"].value <= 1
    # 4 prompts and 4 held-out ones, which are asked again with noise: each picture lies in the store once.
    assert len(list((tmp_path / "blobs" / "content").iterdir())) <= 12
    assert figures["seed 0: over the bus"].value > 0


@pytest.mark.slow
@pytest.mark.ci
def test_reading_is_measured_in_both_forms(tmp_path: Path) -> None:
    figures = measured("rendered", 0, TINY, tmp_path)
    assert figures["seed 0: ledger balanced"].value == 1
    text, picture = (figures[f"seed 0: {form} after RL"].value for form in ("text", "picture"))
    assert figures["seed 0: gap between text and picture"].value == pytest.approx(text - picture)
