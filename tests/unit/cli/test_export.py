"""A run's curves for other tools: read back from what was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event
from wandb.proto.wandb_internal_pb2 import Record

from perilune.api.master.v1.master_pb2 import Evaluation, Run, Version
from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.cli.curves_export import EVENT_FILES, Point, TensorBoardWriter, UnwrittenPoints, WandbWriter

pytestmark = pytest.mark.slow  # trains, or starts services and processes

RUN = Run(id="search-1", recipe_json='{"name": "search", "seed": 3}')


def version(number: int, **metrics: float) -> Version:
    return Version(policy=PolicyVersion(number=number), metrics=metrics, time_unix_ns=(1_000 + number) * 10**9)


def evaluation(number: int, accuracy: float) -> Evaluation:
    return Evaluation(policy=PolicyVersion(number=number), mode="greedy", accuracy=accuracy, mean_tokens=30)


def test_each_point_is_written_once_also_when_an_evaluation_comes_late() -> None:
    unwritten = UnwrittenPoints()
    assert list(unwritten.of([version(0)], [])) == [Point(0, {}, 1_000.0)]
    second = list(unwritten.of([version(0), version(1, reward=0.5, kl=0.1)], [evaluation(0, 0.25)]))
    assert second == [
        Point(1, {"train/kl": 0.1, "train/reward": 0.5}, 1_001.0),
        Point(0, {"heldout/greedy/accuracy": 0.25, "heldout/greedy/mean_tokens": 30.0}),
    ]
    assert list(unwritten.of([version(0), version(1)], [evaluation(0, 0.25)])) == []


POINTS = [Point(0, {"heldout/greedy/accuracy": 0.25}), Point(7, {"train/reward": 0.5, "train/kl": 0.125}, 1_007.0)]


def test_tensorboard_reads_what_was_written_and_a_second_export_replaces_the_first(tmp_path: Path) -> None:
    for _ in range(2):
        writer = TensorBoardWriter(tmp_path, RUN)
        for point in POINTS:
            writer.write(point)
        writer.close()
    (file,) = (tmp_path / RUN.id).glob(EVENT_FILES)
    events = list(read_events(file.read_bytes()))
    scalars = {
        (value.tag, event.step): value.simple_value
        for event in events
        for value in event.summary.value
        if value.HasField("simple_value")
    }
    assert scalars == {("heldout/greedy/accuracy", 0): 0.25, ("train/reward", 7): 0.5, ("train/kl", 7): 0.125}
    assert {event.wall_time for event in events if event.step == 7} == {1_007.0}


def read_events(data: bytes) -> list[Event]:
    """TFRecord: length, its checksum, the record, its checksum."""
    events, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        events.append(Event.FromString(data[at + 12 : at + 12 + length]))
        at += length + 16
    return events


def test_wandb_has_the_points_by_version_and_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    writer = WandbWriter("perilune", RUN, tmp_path)
    for point in reversed(POINTS):  # an evaluation may come after later versions
        writer.write(point)
    writer.close()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = list(read_records(file))
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    shown = [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]
    assert shown == [
        {"version": 7, "train/reward": 0.5, "train/kl": 0.125},
        {"version": 0, "heldout/greedy/accuracy": 0.25},
    ]
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.project) == (RUN.id, "perilune")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["seed"] == 3


def read_records(file: Path) -> list[Record]:
    """wandb's transaction log: a header of 7 bytes, then LevelDB's log format, in blocks of 32 KiB of chunks: checksum
    (4 bytes), length (2), kind (1: whole, 2: first, 3: middle, 4: last), data."""
    data, records, at, parts = file.read_bytes(), [], 7, []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # too little is left of the block for a chunk
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):
            records.append(Record.FromString(b"".join(parts)))
            parts = []
    return records
