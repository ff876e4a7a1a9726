"""What the live view shows of a run, drawn and in plain lines."""

from __future__ import annotations

import time

from perilune.api.master.v1.master_pb2 import Run, RunState, WatchRunResponse, Worker
from perilune.api.trajectory.v1.trajectory_pb2 import Event, StageProgress
from perilune.cli.live_view import ProgressLog, RunView, render
from tests.unit.cli.messages import drawn, policy, run, versions


def seen(view: RunView, now: float = 100.0, width: int = 100) -> str:
    return drawn(render(view, now), width)


def warming_up() -> RunView:
    view = RunView()
    metrics = {"loss": 1.234, "tokens_per_second": 12_345.0}
    stage = StageProgress(name="warmup", step=150, num_steps=600, metrics=metrics)
    starting = Run(id="search-1", state=RunState.RUN_STATE_STARTING, num_iterations=4, seconds=3.0, stages=[stage])
    view.absorb(WatchRunResponse(run=starting), 100.0)
    return view


def half_way() -> RunView:
    view = warming_up()
    fleet = [
        Worker(id="trainer-1", kind="trainer"),
        Worker(id="rollout-2", kind="rollout", policy=policy(1)),
        Worker(id="rollout-1", kind="rollout", policy=policy(2)),
    ]
    running = run(2, RunState.RUN_STATE_RUNNING)
    running.ledger.dispatched, running.ledger.in_flight = 1536, 512
    view.absorb(WatchRunResponse(run=running, versions=list(versions(2)), fleet=fleet), 100.0)
    return view


def test_a_stage_shows_its_steps_and_loss() -> None:
    text = seen(warming_up())
    assert "search-1  starting  0:03" in text
    assert "150/600" in text
    assert "loss 1.23, 12,345 tokens/s" in text
    assert "0/4" in text
    assert "no worker has joined yet" in text


def test_a_running_run_shows_everything_that_is_known() -> None:
    text = seen(half_way(), now=107.0)
    for said in (
        "search-1  running  2:12",
        "Numbers that make a target",
        "2/4",
        "0:04 to go",  # two iterations of two seconds
        "40.0 %  held out, from 15.0 %",
        "50.0 %  held out, from 30.0 %",
        "0.400  from 0.200",
        "14.0  from 12.0 tokens",
        "12,000  from 12,000 tokens/s",
        "v2 3f2a9c1b  loss 0.500",
        "rollout-1 v2 · rollout-2 v1 · trainer-1",
        "1,536 dispatched = 1,024 trained + 512 in flight  balanced ✓",
    ):
        assert said in text


def test_what_was_mended_is_said() -> None:
    view = half_way()
    view.notice = "rollout-2 ended by SIGKILL; starting it again"
    assert view.notice in seen(view)


def in_trouble() -> RunView:
    view = half_way()
    view.fleet[1].trouble = "has been silent"
    view.fleet[1].trouble_since_unix_ns = int(time.mktime((2026, 1, 2, 14, 3, 22, 0, 0, -1)) * 1e9)
    return view


def test_a_silent_service_is_named_with_since_when_and_so_is_a_silent_master() -> None:
    view = in_trouble()
    assert "rollout-2 has been silent since 14:03:22" in seen(view)
    assert "the master has been silent since " not in seen(view, now=111.0)
    assert "the master has been silent since " in seen(view, now=113.0)


def test_lines_say_what_falls_silent_and_what_is_back() -> None:
    log, view = ProgressLog(), half_way()
    log.lines(view, 100.0)
    assert log.lines(in_trouble(), 101.0) == ["  2:06  rollout-2 has been silent since 14:03:22"]
    assert log.lines(in_trouble(), 102.0) == []
    assert log.lines(half_way(), 103.0) == ["  2:08  rollout-2 is back"]


def test_lines_say_where_the_run_is_when_nothing_else_happens() -> None:
    log, view = ProgressLog(), half_way()
    log.lines(view, 100.0)
    assert log.lines(view, 110.0) == []
    view.seen_at = 114.0
    assert log.lines(view, 115.0) == ["  2:06  still running: iteration 3 of 4, 512 samples in flight, 3 in the fleet"]
    assert log.lines(view, 116.0) == []


def test_the_clock_of_the_lines_never_goes_back() -> None:
    log, view = ProgressLog(), half_way()
    view.notice = "first"
    (first,) = [line for line in log.lines(view, 108.0) if "first" in line]
    view.seen_at = 109.0  # the same state, long on its way
    view.notice = "second"
    assert log.lines(view, 109.0) == [first.replace("first", "second")]


def test_no_notice_is_lost_between_two_looks() -> None:
    log, view = ProgressLog(), half_way()
    log.lines(view, 100.0)
    view.notice = "rollout-1 ended"
    view.notice = "rollout-2 ended"
    assert [line[8:] for line in log.lines(view, 100.5)] == ["rollout-1 ended", "rollout-2 ended"]


def test_an_unbalanced_ledger_stands_out() -> None:
    view = half_way()
    view.run.ledger.balanced = False
    assert "does not balance ✗" in seen(view)


def test_the_clock_stops_with_the_run() -> None:
    view = half_way()
    assert view.elapsed_s(now=110.0) == 135.0
    view.absorb(WatchRunResponse(run=run()), 120.0)
    assert view.ended
    assert view.elapsed_s(now=1000.0) == 125.0


def test_a_pause_between_versions_does_not_count_for_the_pace() -> None:
    view = RunView()
    paused = list(versions(4))
    for version in paused[3:]:
        version.time_unix_ns += 3600 * 1_000_000_000
    running = run(4, RunState.RUN_STATE_RUNNING)
    running.num_iterations = 10
    view.absorb(WatchRunResponse(run=running, versions=paused), 0.0)
    assert view.eta_s() == 12.0
    assert RunView().eta_s() is None


def test_a_narrow_terminal_loses_no_figure() -> None:
    text = seen(half_way(), width=72)
    assert "40.0 %" in text
    assert all(len(line) <= 72 for line in text.splitlines())


def test_without_a_terminal_every_evaluation_is_a_line_and_nothing_is_said_twice() -> None:
    log, view = ProgressLog(), warming_up()
    assert log.lines(view, 100.0) == [
        "  0:03  search-1 is starting",
        "  0:03  warmup step 150 of 600, loss 1.23, 12,345 tokens/s",
    ]
    assert log.lines(view, 101.0) == []
    view = half_way()
    assert log.lines(view, 100.0) == [
        "  2:05  search-1 is running",
        "  2:05  v0 held out, sampled: 30.0 % [26.1, 34.2] of 500, 14.0 tokens",
        "  2:05  v0 held out, greedy: 15.0 % [12.1, 18.4] of 500, 10.0 tokens",
        "  2:05  v2 held out, sampled: 50.0 % [45.6, 54.4] of 500, 16.0 tokens",
        "  2:05  v2 held out, greedy: 40.0 % [35.8, 44.4] of 500, 12.0 tokens",
        "  2:05  iteration 2 of 4: reward 0.400, length 14.0 tokens, speed 12,000 tokens/s",
    ]
    assert log.lines(view, 101.0) == []


def test_of_many_iterations_about_ten_are_lines() -> None:
    log, view, said = ProgressLog(), RunView(), []
    for version in list(versions(100))[1:]:
        running = Run(id="long", state=RunState.RUN_STATE_RUNNING, num_iterations=100, policy=version.policy)
        view.absorb(WatchRunResponse(run=running, versions=[version]), 0.0)
        said += [line for line in log.lines(view, 0.0) if "iteration" in line]
    assert [int(line.split()[2]) for line in said] == list(range(10, 101, 10))


def test_the_notice_of_a_failure_carries_its_reason() -> None:
    failed = Run(id="x", state=RunState.RUN_STATE_FAILED, reason="out of memory")
    view = RunView(run=failed)
    assert "x  failed  0:00  out of memory" in seen(view)
    assert ProgressLog().lines(view, 0.0) == ["  0:00  x is failed: out of memory"]


def test_a_warning_is_shown_and_said() -> None:
    view = half_way()
    view.absorb(WatchRunResponse(run=view.run, events=[Event(kind="warning", text="engine_gap is 12 nats")]), 101.0)
    assert "engine_gap is 12 nats" in seen(view)
    assert any("engine_gap is 12 nats" in line for line in ProgressLog().lines(view, 101.0))
