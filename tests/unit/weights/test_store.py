"""Versions on disk: what is written is read back to the bit, kept as long as it is needed, and exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import DTYPE_BFLOAT16
from perilune.errors import NotFoundError, WeightStreamError
from perilune.weights import RawTensor, State, make_delta
from perilune.weights.store import VersionStore, write_safetensors
from services.trainer.versions.snapshot import snapshot
from tests.unit.trainer.models import tiny_policy


def state(number: int) -> State:
    values = np.zeros(50_000, "<u2")
    values[::1000] = number + 1
    return State.of(number, [RawTensor("w", DTYPE_BFLOAT16, (50_000,), memoryview(values.tobytes()))])


def fill(store: VersionStore, count: int, anchor_every: int = 1000) -> None:
    for number in range(count):
        delta = make_delta(state(number - 1), state(number)) if number % anchor_every else None
        store.add(state(number), delta, {"config.json": b"{}"})


def numbers(store: VersionStore) -> list[int]:
    return [kept.version.number for kept in store.versions()]


def contents(kept: State) -> list[bytes]:
    return [bytes(tensor.data) for tensor in kept.tensors]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    store = VersionStore(tmp_path, num_kept=5)
    fill(store, 5)
    for number in range(5):
        assert store.load(number).version == state(number).version
        assert contents(store.load(number)) == contents(state(number))
    assert [kept.base is None for kept in store.versions()] == [True, False, False, False, False]
    assert sum(kept.num_bytes for kept in store.versions()[1:]) < 3000
    assert store.model_files() == {"config.json": b"{}"}
    assert numbers(VersionStore(tmp_path)) == [0, 1, 2, 3, 4]  # by another process


def test_a_policys_name_is_part_of_its_files_names(tmp_path: Path) -> None:
    store, version = VersionStore(tmp_path), state(3)
    version.manifest.version.name = "critic"
    store.add(version, None, {"config.json": b"{}"})
    assert [path.name for path in tmp_path.glob("*.frames")] == [f"critic-v000003-{version.version.digest}.frames"]
    assert store.load(3).version == version.version
    write_safetensors(store.load(3), tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata()["policy"] == "critic"


def test_the_newest_and_what_they_are_changes_of_are_kept(tmp_path: Path) -> None:
    store = VersionStore(tmp_path, num_kept=2)
    fill(store, 6, anchor_every=4)
    assert numbers(store) == [4, 5]
    fill(later := VersionStore(tmp_path / "later", num_kept=2), 7, anchor_every=4)
    assert numbers(later) == [4, 5, 6]  # 5 and 6 are changes of 4


def test_a_pinned_version_stays_until_it_is_unpinned(tmp_path: Path) -> None:
    store = VersionStore(tmp_path, num_kept=1)
    for number in range(6):
        store.add(state(number), None, {})
        if number in (1, 3):
            VersionStore(tmp_path).pin(number)  # as the command line does it
    assert numbers(store) == [1, 3, 5]
    store.pin(1, pinned=False)
    store.add(state(6), None, {})
    assert numbers(store) == [3, 6]


def test_a_run_that_went_back_keeps_what_it_wrote_last(tmp_path: Path) -> None:
    store = VersionStore(tmp_path, num_kept=2)
    for number in (7, 8, 9, 3, 4):
        store.add(state(number), None, {})
    assert numbers(store) == [3, 4]


def test_a_change_of_something_that_is_not_kept_is_written_whole(tmp_path: Path) -> None:
    store = VersionStore(tmp_path)
    store.add(state(5), make_delta(state(4), state(5)), {})
    assert contents(store.load(5)) == contents(state(5))


def test_a_version_that_is_not_kept_is_not_found(tmp_path: Path) -> None:
    store = VersionStore(tmp_path, num_kept=2)
    fill(store, 2)
    with pytest.raises(NotFoundError, match=r"version 12 is not kept in .*; kept are 0, 1"):
        store.load(12)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
def test_a_damaged_file_is_never_served(tmp_path: Path, damage: str) -> None:
    store = VersionStore(tmp_path)
    store.add(state(0), None, {})
    path = store.versions()[0].path
    whole = path.read_bytes()
    match damage:
        case "flipped":
            path.write_bytes(whole[:50_000] + bytes([whole[50_000] ^ 1]) + whole[50_001:])
        case "truncated":
            path.write_bytes(whole[:-5])
        case "empty":
            path.write_bytes(whole[:300])
    with pytest.raises(WeightStreamError, match=r"damaged|ends within a frame"):
        store.load(0)


def test_an_export_is_a_hugging_face_model(tmp_path: Path) -> None:
    policy = tiny_policy()
    version = snapshot(policy, 3, torch.bfloat16)
    store = VersionStore(tmp_path / "versions")
    store.add(version.state, None, version.model_files)
    store.export(3, tmp_path / "exported")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(model.state_dict()[name].bfloat16(), tensor.bfloat16()), name
    assert len(AutoTokenizer.from_pretrained(tmp_path / "exported")) == len(policy.tokenizer)
    with safe_open(tmp_path / "exported" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "version": "3", "digest": version.policy.digest}


def test_an_export_of_what_was_quantised_is_an_ordinary_model(tmp_path: Path) -> None:
    policy = tiny_policy()
    version = snapshot(policy, 0, torch.float32, quantize="int8")
    store = VersionStore(tmp_path / "versions")
    store.add(version.state, None, version.model_files)
    store.export(0, tmp_path / "exported")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported").state_dict()
    for name, tensor in policy.model.state_dict().items():
        assert torch.allclose(exported[name], tensor, atol=tensor.abs().max().item() / 250), name


def test_every_dtype_has_its_name_in_safetensors(tmp_path: Path) -> None:
    dtypes = [value for value in trajectory.Dtype.values() if value != trajectory.DTYPE_UNSPECIFIED]
    tensors = [RawTensor(trajectory.Dtype.Name(d), d, (0,), memoryview(b"")) for d in dtypes]
    write_safetensors(State.of(0, tensors), tmp_path / "all.safetensors")
    names = {tensor.name for tensor in tensors}
    with safe_open(tmp_path / "all.safetensors", "pt") as file:
        assert set(file.keys()) == names
        found = {name: str(file.get_tensor(name).dtype).removeprefix("torch.") for name in names}
    assert found["DTYPE_BFLOAT16"] == "bfloat16"
    assert found["DTYPE_FLOAT8_E4M3"] == "float8_e4m3fn"
    assert found["DTYPE_FLOAT8_E5M2"] == "float8_e5m2"
