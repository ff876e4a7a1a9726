"""The report of a run: for readers, for programs, and as a picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from perilune.api.master.v1.master_pb2 import Ledger, Run, RunState
from perilune.api.reward.v1.reward_pb2 import SCORE_STATUS_TIMEOUT
from perilune.cli.curves_picture import save_curves
from perilune.cli.report import Pair, Report, as_json, match, print_report, render, summary_as_json
from tests.unit.cli.messages import drawn, run, sample, versions

PAIRS = [Pair(sample("a", "no answer: none", 0.0), sample("a", "9 + 12 = 21 yes answer: 9 12", 1.0))]


def finished() -> Report:
    return Report(run(), list(versions(4)), PAIRS, Path("runs/search-1/curves.png"), Path("runs/logs"))


def lines_of(report: Report) -> list[str]:
    """What is shown, line by line, with one space between words."""
    console = Console(width=100, highlight=False)
    with console.capture() as capture:
        print_report(console, report)
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_accuracy_before_and_after_with_intervals_and_everything_between() -> None:
    lines = lines_of(finished())
    assert "Accuracy on 500 held-out problems" in lines
    assert "before v0 15.0 % [12.1, 18.4] 10 30.0 % [26.1, 34.2] 14" in lines
    assert "v2 40.0 % [35.8, 44.4] 12 50.0 % [45.6, 54.4] 16" in lines
    assert "after v4 92.0 % [89.3, 94.1] 14 86.0 % [82.7, 88.8] 18" in lines
    assert "greedy +77.0 points sampled +56.0 points" in lines


def test_paths_and_commands_can_be_copied_from_a_narrow_terminal_and_from_a_pipe() -> None:
    long = "/a/very-long/" + 30 * "folder-" + "end"
    report = finished()
    report.run.model_path = long
    console = Console(width=40, highlight=False)
    with console.capture() as capture:
        print_report(console, replace(report, curves=Path(long, "curves.png"), log_dir=Path(long, "logs")))
    lines = [" ".join(line.split()) for line in capture.get().splitlines()]
    for expected in (
        f"weights {long}",
        f'AutoModelForCausalLM.from_pretrained("{long}")',
        f"curves {long}/curves.png",
        f"logs {long}/logs",
    ):
        assert expected in lines


def test_samples_weights_ledger_and_places() -> None:
    lines = lines_of(finished())
    assert "asked question a?" in lines
    assert "before ✗ no answer: none" in lines
    assert "after ✓ 9 + 12 = 21 yes answer: 9 12" in lines
    assert 'AutoModelForCausalLM.from_pretrained("runs/search-1/model")' in lines
    assert "2,048 dispatched = 2,048 trained balanced ✓" in lines
    assert "curves runs/search-1/curves.png" in lines


def test_the_curves_rise_from_bottom_left_to_top_right() -> None:
    reward = [line[7:11] for line in drawn(render(finished())).splitlines() if "█" in line]
    assert reward == ["   █", "   █", "  ██", " ▁██", " ███", "▁███"]


def test_markup_in_a_response_is_text() -> None:
    report = Report(run(), [], [Pair(sample("a", "[bold]x[/bold] [/]", 0.0), sample("a", "[red]", 1.0))])
    assert "before ✗ [bold]x[/bold] [/]" in lines_of(report)


def test_a_failed_grader_is_shown_as_that_and_not_as_wrong() -> None:
    late = sample("a", "x", None)
    late.score.status = SCORE_STATUS_TIMEOUT
    assert "before timeout x" in lines_of(Report(run(), [], [Pair(late, sample("a", "y", 0.5))]))


def test_a_run_that_did_nothing_still_has_a_report() -> None:
    lines = lines_of(Report(Run(id="x", state=RunState.RUN_STATE_FAILED, reason="no such model")))
    assert lines[0] == "x failed 0:00, 0 of 0 iterations"
    assert lines[1] == "no such model"


def test_a_reason_that_only_repeats_the_state_is_not_said() -> None:
    stopped = Run(id="x", state=RunState.RUN_STATE_STOPPED, reason="stopped")
    assert [line for line in lines_of(Report(stopped)) if line] == ["x stopped 0:00, 0 of 0 iterations"]


def test_samples_are_matched_by_prompt_and_never_by_who_was_right() -> None:
    before = [sample("a", "1", 0.0), sample("b", "2", 1.0), sample("c", "3", 0.0)]
    after = [sample("c", "6", 0.0), sample("b", "5", 0.0)]
    assert [(p.before.trajectory.response, p.after.trajectory.response) for p in match(before, after)] == [
        ("2", "5"),
        ("3", "6"),
    ]


def test_for_programs_nothing_is_rounded_or_left_out() -> None:
    document = json.loads(json.dumps(as_json(finished())))
    assert (document["id"], document["state"], document["seconds"]) == ("search-1", "finished", 125.0)
    assert document["submitted"] == "2023-11-14T22:13:20+00:00"
    assert [(e["mode"], e["version"], e["num_correct"], e["accuracy"]) for e in document["evaluations"]] == [
        ("greedy", 0, 75, 0.15),
        ("greedy", 2, 200, 0.4),
        ("greedy", 4, 460, 0.92),
        ("sampled", 0, 150, 0.3),
        ("sampled", 2, 250, 0.5),
        ("sampled", 4, 430, 0.86),
    ]
    assert [version["version"] for version in document["versions"]] == [0, 1, 2, 3, 4]
    assert document["versions"][2]["metrics"]["reward"] == 0.4
    assert document["ledger"].keys() == {field.name for field in Ledger.DESCRIPTOR.fields}
    assert document["ledger"]["balanced"] is True
    assert document["model_path"] == "runs/search-1/model"


def test_a_line_of_the_list_has_the_latest_accuracy() -> None:
    assert summary_as_json(run())["accuracy"] == {"greedy": 0.92, "sampled": 0.86}
    assert summary_as_json(Run(id="new"))["accuracy"] == {}


@pytest.mark.slow
def test_the_picture_is_a_png_of_three_panels_and_none_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "search-1" / "curves.png"
    assert save_curves(finished(), path)
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(header[at : at + 4], "big") for at in (16, 20))
    assert width > 3 * height
    assert not save_curves(Report(run(0), list(versions(0))), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
