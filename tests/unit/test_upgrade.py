"""What 0.1.0 wrote, against this version: database, checkpoint, messages; tests/cases/upgrade/make.sh made the cases.

And what this version writes, read by the contract that 0.1.0 had: a fleet is upgraded worker by worker.
"""

from __future__ import annotations

import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import Default, DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from perilune.api.master.v1 import master_pb2 as m
from perilune.api.trajectory.v1.trajectory_pb2 import (
    DTYPE_FLOAT32,
    ENDING_BUDGET,
    PURPOSE_TRAIN,
    PolicyVersion,
    ScoredTrajectory,
    Trajectory,
)
from perilune.codec import unpack
from perilune.errors import InvalidInputError
from perilune.ids import parse_group, parse_sample
from perilune.policies import policy_name
from perilune.recipe import Recipe, read_stored_recipe
from perilune.weights import RawTensor, State
from perilune.weights.store import VersionStore
from services.master.api.description import describe
from services.master.dispatch import task_for
from services.master.intake import check_sample, partial_of, scored_of
from services.master.prompts import open_prompts
from services.master.store import Store
from services.master.tables import SampleState
from services.trainer.batch import Ages, read_group
from services.trainer.session import Session

CASES = Path("tests/cases/upgrade")


def unpack_old_home(folder: Path) -> Path:
    """A home as 0.1.0 left it: the runs `finished`, and `stopped` after its second version of six."""
    with tarfile.open(CASES / "home-0.1.0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def old_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_old_home(tmp_path_factory.mktemp("home"))


def rows(home: Path, query: str) -> list[Any]:
    with sqlite3.connect(f"file:{home / 'perilune.db'}?mode=ro&immutable=1", uri=True) as database:
        return database.execute(query).fetchall()


def recipe_of(home: Path, run_id: str) -> Recipe:
    ((text,),) = rows(home, f"SELECT recipe FROM runs WHERE id = '{run_id}'")
    return read_stored_recipe(text)


# ---- the database


async def test_a_database_of_0_1_0_is_brought_up_to_date_and_its_ledgers_balance(tmp_path: Path) -> None:
    home = unpack_old_home(tmp_path)
    assert rows(home, "SELECT version_num FROM alembic_version") == [("0003",)]
    async with Store.open(f"sqlite+aiosqlite:///{home / 'perilune.db'}") as store:
        found = {row.id: await describe(store, row) for row in await store.runs()}
        versions = await store.versions("finished")
    assert {run.problem for run in found.values()} == {""}
    finished, stopped = found["finished"], found["stopped"]
    assert (finished.state, finished.iteration, finished.num_iterations) == (m.RUN_STATE_FINISHED, 3, 3)
    assert (stopped.state, stopped.iteration, stopped.num_iterations) == (m.RUN_STATE_STOPPED, 2, 6)
    counts = [(run.ledger.dispatched, run.ledger.trained, run.ledger.in_flight) for run in (finished, stopped)]
    assert counts == [(48, 48, 0), (48, 32, 16)]
    assert finished.ledger.balanced
    assert stopped.ledger.balanced
    assert [version.policy.number for version in versions] == [0, 1, 2, 3]
    assert {policy_name(version.policy) for version in versions} == {"policy"}
    assert [evaluation.policy.number for evaluation in finished.evaluations] == [0, 0, 2, 2, 3, 3]


def test_its_recipe_says_what_it_said(old_home: Path) -> None:
    recipe = recipe_of(old_home, "stopped")
    assert recipe.prompts.sampler.type == "prioritized"
    assert recipe.trainer.objective.type == "k15"
    assert recipe.trainer.objective.tau == 0.2
    assert recipe.trainer.objective.correction == "decoupled"
    assert recipe.trainer.segments == "all"


# ---- what the trainer wrote


def test_a_checkpoint_of_0_1_0_is_gone_on_from(old_home: Path) -> None:
    digests = dict(rows(old_home, "SELECT number, digest FROM versions WHERE run_id = 'stopped'"))
    committed = PolicyVersion(number=2, digest=digests[2])
    versions = [PolicyVersion(number=number, digest=digest) for number, digest in digests.items()]
    recipe, folder = recipe_of(old_home, "stopped"), old_home / "stopped"
    session = Session.open(recipe, folder, committed, lambda: False, versions=versions)
    assert session.number == 2
    assert session.published.policy == committed  # to the bit
    strangers = [PolicyVersion(number=number, digest=f"{number}") for number in range(3)]
    with pytest.raises(InvalidInputError, match="comes from a recipe with another model, seed or stages before RL"):
        Session.open(recipe, folder, strangers[2], lambda: False, versions=strangers)


def test_versions_of_0_1_0_on_disk_are_read(old_home: Path) -> None:
    store = VersionStore(old_home / "finished" / "versions")
    kept = store.versions()
    assert [(each.version.number, policy_name(each.version)) for each in kept][-1] == (3, "policy")
    assert store.load(3).version == kept[-1].version


# ---- messages of an old worker


def test_scored_samples_of_an_old_worker_are_understood(old_home: Path) -> None:
    payloads = rows(old_home, "SELECT payload FROM samples WHERE run_id = 'finished' AND state = 'trained'")
    published = [digest for (digest,) in rows(old_home, "SELECT digest FROM versions WHERE run_id = 'finished'")]
    newest = PolicyVersion(number=3, digest=published[-1])
    ages = Ages.of(recipe_of(old_home, "finished"), newest)
    assert len(payloads) == 48
    for (payload,) in payloads:
        scored = ScoredTrajectory.FromString(payload)
        check_sample("finished", scored.trajectory)
        line = scored_of(scored, payload)
        assert (line.state, line.value) == (SampleState.SCORED, scored.score.value)
        assert str(parse_group(line.group_id)) == line.group_id
        assert parse_sample(scored.trajectory.id) == (line.group_id, line.sample_index)
        (sample,) = read_group(m.ScoredGroup(group_id=line.group_id, samples=[scored]), ages, published).samples
        assert sample.num_written == line.num_tokens > 0
        assert not np.isnan(sample.behaviour_logprobs[sample.in_loss]).any()


def trained_in_two_rounds(home: Path) -> Trajectory:
    """A sample that was continued under a second version."""
    payloads = rows(home, "SELECT payload FROM samples WHERE state = 'trained' AND round > 0")
    found = [ScoredTrajectory.FromString(payload).trajectory for (payload,) in payloads]
    return next(trajectory for trajectory in found if len(trajectory.segments) > 1)


def test_unfinished_samples_of_an_old_worker_are_understood(old_home: Path) -> None:
    unfinished = trained_in_two_rounds(old_home)
    del unfinished.segments[1:]
    unfinished.ending, unfinished.round = ENDING_BUDGET, 0
    check_sample(unfinished.run_id, unfinished)
    assert partial_of(unfinished, b"").num_tokens == 24


# ---- an old worker reads what this version writes


@pytest.fixture(scope="module")
def old_contract() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString((CASES / "contract-0.1.0.binpb").read_bytes()).file:
        pool.Add(file)
    return pool


def as_old(message: Message, contract: DescriptorPool) -> Any:
    """The message as a worker of 0.1.0 reads it."""
    return GetMessageClass(contract.FindMessageTypeByName(message.DESCRIPTOR.full_name)).FromString(
        message.SerializeToString()
    )


async def test_a_task_is_understood_by_an_old_worker(old_home: Path, tmp_path: Path, old_contract: Any) -> None:
    recipe = recipe_of(old_home, "stopped")
    async with Store.open(f"sqlite+aiosqlite:///{unpack_old_home(tmp_path) / 'perilune.db'}") as store:
        ((group, _), *_) = await store.open_groups("stopped", SampleState.DISPATCHED)
        policy = await store.newest_version("stopped")
    assert policy
    unfinished = trained_in_two_rounds(old_home)
    task = task_for(group, [1, 3], policy, recipe, open_prompts(recipe.prompts, recipe.seed), 24, unfinished)
    old = as_old(task, old_contract)
    assert (old.run_id, old.group_id, old.purpose) == ("stopped", group.id, PURPOSE_TRAIN)
    assert list(old.sample_indices) == [1, 3]
    assert (old.policy.number, old.policy.digest) == (2, policy.digest)
    assert (old.sampling.temperature, old.sampling.max_tokens, old.budget_tokens) == (1.0, 48, 24)
    assert [message.content for message in old.prompt.messages] == [each.content for each in task.prompt.messages]
    assert [(grader.name, dict(grader.options)["at_most"]) for grader in old.graders] == [("length", "20")]
    written = [unpack(segment.tokens).tolist() for segment in old.unfinished.segments]
    assert written == [unpack(segment.tokens).tolist() for segment in unfinished.segments]


def test_a_manifest_is_understood_by_an_old_worker(old_contract: DescriptorPool) -> None:
    values = np.arange(6, dtype="<f4")
    manifest = State.of(3, [RawTensor("w", DTYPE_FLOAT32, (2, 3), memoryview(values.tobytes()))]).manifest
    old = as_old(manifest, old_contract)
    assert (old.version.number, old.version.digest) == (3, manifest.version.digest)
    assert [(each.name, each.dtype, list(each.shape), each.num_bytes) for each in old.tensors] == [
        ("w", DTYPE_FLOAT32, [2, 3], 24)
    ]


def messages_of(contract: DescriptorPool) -> Iterator[Any]:
    for file in FileDescriptorSet.FromString((CASES / "contract-0.1.0.binpb").read_bytes()).file:
        waiting = list(contract.FindFileByName(file.name).message_types_by_name.values())
        while waiting:
            waiting += (message := waiting.pop()).nested_types
            yield message


def test_no_field_of_0_1_0_has_gone_or_changed_its_meaning(old_contract: DescriptorPool) -> None:
    for old in messages_of(old_contract):
        new = Default().FindMessageTypeByName(old.full_name)
        for number, field in old.fields_by_number.items():
            assert _described(new.fields_by_number[number]) == _described(field), f"{old.full_name}.{field.name}"


def _described(field: Any) -> tuple[Any, ...]:
    """What decides how a field is written and read."""
    inner = field.message_type.full_name if field.message_type else ""
    enum: EnumDescriptor | None = field.enum_type
    return field.name, field.type, field.is_repeated, inner, enum.full_name if enum else ""
