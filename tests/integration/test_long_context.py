"""A trajectory of 131,072 tokens, in segments, over a real bus and database to the packed row; the model is left out,
for its attention alone takes minutes (`benchmarks/long_context.py` has it in)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from benchmarks.long_context import scored_pair
from perilune.api.master.v1.master_pb2 import ScoredGroup
from perilune.api.rollout.v1.rollout_pb2 import RolloutTask
from perilune.api.trajectory.v1 import trajectory_pb2 as trajectory
from perilune.api.trajectory.v1.trajectory_pb2 import PURPOSE_TRAIN, PolicyVersion, ScoredTrajectory, Trajectory
from perilune.codec import unpack
from perilune.runtime.bus import MAX_PAYLOAD_BYTES, Bus
from perilune.runtime.subjects import partial_subject, prompt_subject, rollout_consumer
from services.master.intake import scored_of, take_partials
from services.master.records import Group
from services.master.seals import seal_of
from services.master.store import Store
from services.master.tables import SampleState
from services.rollout.rollout import Rollout
from services.trainer.batch import Ages, read_group
from services.trainer.policy.packing import pack_rows
from tests.unit.rollout.tiny import tiny_tokenizer

LENGTH = 131_072
POLICY = PolicyVersion(number=0, digest="d")


async def test_a_trajectory_of_the_longest_context_goes_the_whole_way(bus: Bus, tmp_path: Path) -> None:
    scored = scored_pair(LENGTH, POLICY)
    long = scored[0].trajectory
    expected = np.concatenate([unpack(long.prompt_tokens), *(unpack(segment.tokens) for segment in long.segments)])
    assert len(expected) == LENGTH
    assert long.ByteSize() < MAX_PAYLOAD_BYTES / 4
    saved = Trajectory()
    saved.CopyFrom(long)
    del saved.segments[-1]
    saved.run_id, saved.ending = "run", trajectory.ENDING_BUDGET

    async with Store.open(f"sqlite+aiosqlite:///{tmp_path}/test.db") as store:
        await store.add_run("run", "{}")
        await store.add_groups([Group("run.g", "run", 0, PURPOSE_TRAIN, "", 0, 0, 2)])
        saved.prompt.seal = seal_of(await store.secret("run") or b"", saved)

        # From a worker to the master, and on to the next worker.
        news = asyncio.Event()
        taking = asyncio.create_task(take_partials(bus, store, lambda run_id: news.set()))
        await bus.publish(partial_subject("run"), saved, "run.g/0/partial-0")
        await asyncio.wait_for(news.wait(), 60)
        taking.cancel()
        ((_, (awaited,)),) = await store.open_groups("run", SampleState.PARTIAL)
        await store.mark_continued([awaited])
        payload = await store.partial("run.g", 0)
        assert payload is not None
        task = RolloutTask(
            run_id="run", group_id="run.g", sample_indices=[0], unfinished=Trajectory.FromString(payload)
        )
        task.sampling.max_tokens = LENGTH
        await bus.declare_consumer(rollout_consumer("run"))
        await bus.publish(prompt_subject("run"), task, "run.g/0/round-1-1")
        async for deliveries in bus.deliveries(rollout_consumer("run"), RolloutTask):
            if deliveries:
                task = deliveries[0].message
                break
        prompt = unpack(task.unfinished.prompt_tokens)
        rest = Rollout(task, 0, prompt, tiny_tokenizer(), max_context=LENGTH)  # type: ignore[arg-type]
        asked = rest.next_sample()
        num_last = len(unpack(long.segments[-1].tokens))
        assert (len(asked.tokens), asked.max_new_tokens) == (LENGTH - num_last, num_last)

        # Scored, batched, unpacked, packed.
        long.round = 1
        await store.record_scores([scored_of(each, each.SerializeToString()) for each in scored])
        await store.close_batch("run", 0, {"run.g": None})
        ((group_id, _, payloads),) = [row async for row in store.batch("run", 0)]
    message = ScoredGroup(group_id=group_id, samples=map(ScoredTrajectory.FromString, payloads))
    samples = read_group(message, Ages(POLICY), {"d"}).samples
    np.testing.assert_array_equal(samples[0].tokens, expected)
    first, second = pack_rows([s.tokens for s in samples], [s.in_loss for s in samples], max_tokens=8192)
    assert len(first.tokens_T) == LENGTH - 1  # longer than a row may be: it has its own
    assert len(first.targets_S) == LENGTH - 2
    assert second.indices == [1]
