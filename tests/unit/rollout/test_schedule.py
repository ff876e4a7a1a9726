"""Blocks and passes of the paged engine, on the host alone: in a sample's blocks is always its own context."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from services.rollout.engines.base import SampleRequest, Sampling
from services.rollout.engines.embedded.decoder import Row
from services.rollout.engines.embedded.paged.blocks import SPARE_BLOCK, BlockPool, block_keys, num_blocks
from services.rollout.engines.embedded.paged.pages import places_of
from services.rollout.engines.embedded.paged.schedule import Plan, Scheduler

POLICY = PolicyVersion(number=0)


class NoEndings:
    tokens: frozenset[int] = frozenset()

    def texts(self, stop: tuple[str, ...]) -> None:
        return None


def row(name: str, tokens: Sequence[int], max_new_tokens: int) -> Row:
    request = SampleRequest(name, np.array(tokens, dtype=np.int32), max_new_tokens, Sampling())
    return Row(request, NoEndings(), 10_000)  # type: ignore[arg-type]


def scheduler(size: int, max_running: int = 8, pass_tokens: int = 64) -> Scheduler:
    pool = BlockPool(size)

    def grow(size: int) -> bool:
        pool.grow(size)
        return True

    return Scheduler(pool, max_running, pass_tokens, grow)


def test_a_group_reads_its_prompt_once() -> None:
    group = scheduler(64)
    group.waiting.extend(row(str(index), range(5, 42), 20) for index in range(8))
    plan = group.plan()
    assert len(group.running) == 8
    assert [(read.start, read.end) for read in plan.reads] == [(0, 36)]  # the last token is read by each as it decodes
    assert [(copy.start, copy.count, copy.offset) for copy in plan.copies] == [(32, 4, 32)] * 7
    shared = {tuple(context.blocks[:2]) for context in group.running}
    assert len(shared) == 1
    assert len({context.blocks[2] for context in group.running}) == 8
    assert group.pool.num_free == 64 - 2 - 8


def test_a_sample_that_comes_later_shares_full_blocks_also_of_one_that_ended() -> None:
    later = scheduler(64)
    later.waiting.append(row("first", range(5, 42), 20))
    later.plan()
    later.running[0].row.ended = True
    later.waiting.append(row("second", range(5, 42), 20))
    assert [(read.start, read.end) for read in later.plan().reads] == [(32, 36)]
    later.swapped(keeps=True)
    later.waiting.append(row("third", range(5, 42), 20))
    assert [(read.start, read.end) for read in later.plan().reads] == [(0, 36)]  # under other weights


def test_long_prompts_are_read_in_chunks_while_others_write() -> None:
    chunked = scheduler(64, pass_tokens=64)
    chunked.waiting.extend([row("short", [5, 6, 7], 40), row("long", range(5, 205), 4), row("next", [8, 9], 4)])
    spans = []
    for _ in range(5):
        plan = chunked.plan()
        spans.append([(read.context.row.sample.id, read.start, read.end) for read in plan.reads])
        assert plan.num_tokens <= 64
        for context in chunked.running:
            context.row.add(POLICY, 9, 0.0, 0.0)
    assert spans == [
        [("short", 0, 2), ("long", 0, 48)],
        [("long", 48, 112)],
        [("long", 112, 176)],
        [("long", 176, 199), ("next", 0, 1)],
        [],
    ]


def test_the_last_to_join_makes_room_and_all_come_to_their_end() -> None:
    tight = scheduler(6)
    tight.waiting.extend([row("old", [5], 60), row("new", [6], 60)])
    order = []
    for _ in range(200):
        tight.plan()
        for context in list(tight.running):
            if context.row.add(POLICY, 9, 0.0, 0.0) is not None:
                context.row.ended = True
                order.append(context.row.sample.id)
        if len(order) == 2:
            break
    assert order == ["old", "new"]


def test_one_sample_that_needs_more_than_there_is_gets_it_alone() -> None:
    small = scheduler(4)
    small.waiting.extend([row("a", [5, 6], 10), row("large", [7, 8], 200)])
    small.plan()
    assert [context.row.sample.id for context in small.running] == ["a"]
    small.running[0].row.ended = True
    small.plan()
    assert [context.row.sample.id for context in small.running] == ["large"]
    assert small.pool.size == num_blocks(202)


def test_a_sample_that_no_memory_can_hold_ends_where_the_blocks_do() -> None:
    full = Scheduler(BlockPool(4), 8, 64, lambda _: False)
    full.waiting.append(row("large", [7, 8], 200))
    ended = False
    while not ended:
        full.plan()
        (context,) = full.running
        ended = context.row.add(POLICY, 9, 0.0, 0.0) is not None
    assert len(context.row.tokens) == 64


class Store:
    """What a pass would write: at each place, the tokens up to there, and which version wrote it."""

    def __init__(self) -> None:
        self.lies: dict[int, tuple[int, ...]] = {}
        self.version = 0

    def write(self, tokens: Sequence[int], start: int, end: int, blocks: Sequence[int]) -> None:
        for position, place in zip(range(start, end), places_of(start, end - start, blocks), strict=True):
            self.lies[int(place)] = (self.version, *tokens[: position + 1])

    def do(self, plan: Plan, schedule: Scheduler) -> None:
        packed = [position for read in plan.reads for position in range(read.start, read.end)]
        for read in plan.reads:
            assert packed[read.offset] == read.start
            self.write(read.context.row.tokens, read.start, read.end, read.context.blocks)
        for copy in plan.copies:
            assert packed[copy.offset : copy.offset + copy.count] == list(range(copy.start, copy.start + copy.count))
            self.write(copy.context.row.tokens, copy.start, copy.start + copy.count, copy.context.blocks)
        for context in schedule.running:
            self.write(context.row.tokens, context.position, context.position + 1, context.blocks)

    def check(self, schedule: Scheduler) -> None:
        for context in schedule.running:
            tokens = context.row.tokens
            for position, place in enumerate(places_of(0, len(tokens), context.blocks)):
                assert place >= 16 * (SPARE_BLOCK + 1)
                version, *lies = self.lies[int(place)]
                assert lies == tokens[: position + 1]
                assert version == self.version or not context.is_current


@pytest.mark.parametrize("seed", range(6))
def test_whatever_comes_each_sample_has_its_own_context(seed: int) -> None:
    """Samples of all lengths, shared beginnings, too few blocks, interruptions, other weights."""
    rng = random.Random(seed)
    size = rng.choice([7, 12, 40])
    schedule, store = scheduler(size, max_running=rng.choice([2, 5, 9]), pass_tokens=rng.choice([16, 40, 200])), Store()
    prompts = [[rng.randrange(5, 60) for _ in range(rng.choice([1, 3, 16, 17, 33, 50]))] for _ in range(4)]
    rows = [row(str(index), rng.choice(prompts), rng.choice([1, 5, 20, 40])) for index in range(24)]
    coming = list(rows)
    for _ in range(3000):
        if all(each.ended for each in rows):
            break
        for _ in range(rng.randrange(3)):
            if coming:
                schedule.waiting.append(coming.pop())
        store.do(schedule.plan(), schedule)
        store.check(schedule)
        used = {block for context in schedule.running for block in context.blocks}
        assert len(used) <= schedule.pool.size
        for context in schedule.running:
            context.row.ended = context.row.add(POLICY, rng.randrange(5, 9), 0.0, 0.0) is not None
        if rng.random() < 0.05:
            for context in schedule.running[:1]:
                context.row.ended = True
        if rng.random() < 0.03:
            store.version += 1
            schedule.swapped(keeps=rng.random() < 0.5)
    assert all(each.ended for each in rows)
    schedule.plan()
    assert schedule.pool.num_free == schedule.pool.size  # every block came back


def test_keys_stand_for_all_that_came_before() -> None:
    first, second = block_keys(row("", range(32), 1), [], 2)
    assert block_keys(row("", [*range(16), *range(16, 32)], 1), [first], 2) == [first, second]
    assert block_keys(row("", [99, *range(1, 32)], 1), [], 2)[1] != second
    pool = BlockPool(3)
    blocks = pool.take(2)
    pool.name(blocks[0], first)
    pool.release(blocks)
    assert pool.take(2) == [3, blocks[1]]  # that which begins more samples is taken last
    assert pool.share([first, second]) == [blocks[0]]
    pool.release([blocks[0]])
    pool.take(1)
    assert pool.share([first]) == []
