"""Plans: from a command line, a file, a preset; and the folder that is of one plan alone."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from perilune.errors import AlreadyExistsError, NotFoundError, RecipeError
from perilune.sft.folder import open_folder
from perilune.sft.plan import PRESETS, SftPlan, read_plan
from services.trainer.optimization import stage_learning_rate


def plan_of(data: Path, *overrides: str, preset: str | None = None, **flags: object) -> SftPlan:
    return read_plan([data], flags, "somewhere", preset, overrides)


def test_flags_and_overrides_are_keys_of_every_stage(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "a.jsonl", "stages.0.schedule=linear", "trainer.adapter.rank=4", epochs=2.0)
    (stage,) = plan.stages
    assert (stage.epochs, stage.schedule, stage.path) == (2.0, "linear", [str(tmp_path / "a.jsonl")])
    assert (stage.broken, stage.too_long) == ("drop", "drop")
    assert plan.trainer.adapter is not None
    assert plan.trainer.adapter.rank == 4
    (stage,) = plan_of(tmp_path / "a.jsonl", "defaults.num_steps=7").stages
    assert (stage.epochs, stage.num_steps) == (None, 7)


def test_the_papers_two_stages_are_a_preset(tmp_path: Path) -> None:
    first, second = plan_of(tmp_path / "a.jsonl", preset="k15").stages
    assert [(s.epochs, s.max_length, s.learning_rate, s.final_learning_rate) for s in (first, second)] == [
        (1.0, 32_768, 2e-5, 2e-6),
        (1.0, 131_072, 1e-5, 1e-6),
    ]
    with pytest.raises(RecipeError, match=r"stage 0 has a learning_rate of its own: write --set stages\.0"):
        plan_of(tmp_path / "a.jsonl", preset="k15", learning_rate=1e-3)
    with pytest.raises(RecipeError, match="no preset 'k16'; there are k15"):
        plan_of(tmp_path / "a.jsonl", preset="k16")
    assert all(tomllib.loads(file.read_text())["stages"] for file in PRESETS.iterdir())


def test_rates_by_hand(tmp_path: Path) -> None:
    (stage,) = plan_of(tmp_path / "a.jsonl", "defaults.final_learning_rate=0.2", "defaults.warmup_steps=2").stages

    def rates(schedule: str) -> list[float]:
        table = stage.model_copy(update={"schedule": schedule})
        return [stage_learning_rate(1.0, step, 4, table) for step in range(4)]

    # The ramp 1/2, 1, 1, 1 times the line 1, 0.8, 0.6, 0.4 from the peak to 0.2.
    assert rates("linear") == pytest.approx([0.5, 0.8, 0.6, 0.4])
    assert rates("constant") == [0.5, 1.0, 1.0, 1.0]
    assert rates("cosine") == pytest.approx([0.5, 0.2 + 0.4 * (1 + 0.5**0.5), 0.6, 0.2 + 0.4 * (1 - 0.5**0.5)])


def test_a_plans_file_names_paths_from_where_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text('model.path = "m"\ndefaults.path = "a.jsonl"\n[[stages]]\n[[stages]]\npath = ["b.jsonl"]\n')
    (tmp_path / "m").mkdir()
    plan = read_plan([file], {})
    assert plan.model.path == str(tmp_path / "m")
    assert [stage.path for stage in plan.stages] == [[str(tmp_path / name)] for name in ("a.jsonl", "b.jsonl")]
    with pytest.raises(RecipeError, match=r"stages\.0\.max_lenght.*max_length"):
        read_plan([file], {}, overrides=["stages.0.max_lenght=5"])
    with pytest.raises(RecipeError, match="give epochs or num_steps"):
        read_plan([file], {}, overrides=["stages.0.num_steps=5", "stages.0.epochs=2"])
    with pytest.raises(RecipeError, match="which model is trained"):
        read_plan([tmp_path / "a.jsonl"], {})


def test_a_folder_is_of_one_plan_and_of_the_same_rows(tmp_path: Path) -> None:
    data, out = tmp_path / "a.jsonl", tmp_path / "out"
    with pytest.raises(NotFoundError, match=r"a\.jsonl"):
        open_folder(out, plan_of(data))
    assert not out.exists()
    data.write_text('{"text": "a"}')
    assert open_folder(out, plan_of(data)).start == open_folder(out, plan_of(data)).start
    with pytest.raises(AlreadyExistsError, match=r"another stages\.0\.epochs: 1\.0 and not 2\.0"):
        open_folder(out, plan_of(data, epochs=2.0))
    data.write_text('{"text": "b"}')
    with pytest.raises(AlreadyExistsError, match=r"another inputs\..*a\.jsonl"):
        open_folder(out, plan_of(data))
    with pytest.raises(AlreadyExistsError, match="not from this command"):
        open_folder(tmp_path, plan_of(data))
