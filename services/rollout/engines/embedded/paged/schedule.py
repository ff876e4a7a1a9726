"""Says which samples run in the next pass, what it reads, and whose blocks make room: decided on the host, without
tensors.

A sample's context is read in chunks of at most a pass's tokens, so that running samples write a token meanwhile. When
it is read but for its last token, the sample runs. Samples that begin alike share full blocks; of those that join in
one pass, one reads what is left of a common prompt, and the others have it stored for them too.

When no block is free, what was read last makes room: first contexts that are only partly read, then the sample that
joined last. Its tokens stay, and it waits at the head of the queue to be read again. The oldest is never put aside, so
all come to their end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from services.rollout.engines.embedded.decoder import Row
from services.rollout.engines.embedded.paged.blocks import BLOCK_TOKENS, BlockPool, block_keys, num_blocks


@dataclass(eq=False)
class Context:
    """A sample's blocks."""

    row: Row
    number: int = 0  # in the order of joining
    blocks: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)  # of its first blocks
    num_read: int = 0  # tokens whose keys and values are stored, after the pass that is planned
    is_current: bool = True  # the version that serves read all of it

    @property
    def position(self) -> int:
        """Returns where the last token goes, which the next pass reads."""
        return len(self.row.tokens) - 1


@dataclass(frozen=True)
class Read:
    """Tokens of a context that a pass reads."""

    context: Context
    start: int  # in its tokens
    end: int
    offset: int  # of the first one in the packed row


@dataclass(frozen=True)
class Copy:
    """Tokens of a packed row that are stored for one more context."""

    context: Context
    start: int  # in its tokens
    count: int
    offset: int  # of the first one in the packed row


@dataclass
class Plan:
    """One pass: reads first, then the last token of every running sample."""

    reads: list[Read] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    tails: dict[tuple[bytes, bytes], int] = field(default_factory=dict)  # where ends of prompts lie in the packed row
    num_tokens: int = 0  # that are read


class Scheduler:
    """Samples that wait and that run, and their blocks."""

    def __init__(self, pool: BlockPool, max_running: int, pass_tokens: int, grow: Callable[[int], bool]) -> None:
        """
        Args:
            pool: of all blocks.
            max_running: samples at once.
            pass_tokens: that a pass reads at most; at least a block.
            grow: makes the pool as large, for one sample that alone needs more than it has; False if it cannot: the
                sample then ends where the blocks do.
        """
        self.pool = pool
        self.waiting: deque[Row] = deque()
        self.running: list[Context] = []
        self._partial: dict[Row, Context] = {}  # of waiting samples: what was read of them
        self._max_running, self._pass_tokens, self._grow = max_running, max(pass_tokens, BLOCK_TOKENS), grow
        self._num_joined = 0

    def plan(self) -> Plan:
        """Decides on the next pass. Every running sample has a block for its last token then."""
        self._drop_ended()
        for context in sorted(self.running, key=lambda context: context.number):
            self._extend(context)
        plan = Plan()
        while self.waiting and len(self.running) < self._max_running and self._admit(self.waiting[0], plan):
            pass
        if not self.running and not plan.reads and self.waiting:  # others' partly read contexts are in the way
            self._put_aside_all()
            self._admit(self.waiting[0], plan)
        return plan

    def swapped(self, *, keeps: bool) -> None:
        """Weights changed: nothing that was read is shared any more, and running samples keep or lose it."""
        self.pool.forget_keys()
        self._drop_ended()
        self._put_aside_all()
        for context in sorted(self.running, key=lambda context: -context.number):
            context.is_current = False
            if not keeps:
                self._put_aside(context)

    def shrink_passes(self) -> int:
        """Halves what a pass reads, and reads all again, since a pass broke off. The new number; 0: it cannot."""
        self._pass_tokens = self._pass_tokens // 2 // BLOCK_TOKENS * BLOCK_TOKENS
        self.swapped(keeps=False)
        return self._pass_tokens

    def _drop_ended(self) -> None:
        """Releases what ended; the last running samples move into the gaps."""
        for row in [row for row in self._partial if row.ended]:
            self.pool.release(self._partial.pop(row).blocks)
        place = 0
        while place < len(self.running):
            if self.running[place].row.ended:
                self._leave(self.running[place])
            else:
                place += 1

    def _leave(self, context: Context) -> None:
        self.pool.release(context.blocks)
        place = self.running.index(context)
        last = self.running.pop()
        if last is not context:
            self.running[place] = last

    def _extend(self, context: Context) -> None:
        """Gives a running sample the block of its last token, if it begins one."""
        position = context.position
        if position < len(context.blocks) * BLOCK_TOKENS or context not in self.running:
            return
        self._name_blocks(context, position - BLOCK_TOKENS, position)
        while not self.pool.num_free:
            victim = self._last_joined()
            self._put_aside(victim)
            if victim is context:
                return
        context.blocks += self.pool.take(1)

    def _last_joined(self) -> Context:
        """The context that makes room next."""
        return next(reversed(self._partial.values()), None) or max(self.running, key=lambda each: each.number)

    def _put_aside(self, context: Context) -> None:
        """Releases a context's blocks; its sample waits, at the head of the queue if it ran."""
        if self._partial.pop(context.row, None):
            self.pool.release(context.blocks)
            return
        self._leave(context)
        self.waiting.appendleft(context.row)

    def _put_aside_all(self) -> None:
        for context in list(self._partial.values()):
            self._put_aside(context)

    def _admit(self, row: Row, plan: Plan) -> bool:
        """Reads on in the sample at the head of the queue; it joins if that was all. Returns whether it joined."""
        context = self._partial.get(row) or self._reserve(row)
        if context is None:
            return False
        self._partial[row] = context
        if not self._read(context, plan):
            return False
        del self._partial[row]
        self.waiting.popleft()
        self._num_joined += 1
        context.number = self._num_joined
        self.running.append(context)
        return True

    def _reserve(self, row: Row) -> Context | None:
        """Blocks for all of a sample's tokens; None if there is no room beside those that run, which grow too."""
        is_alone = not self.running and not self._partial
        if num_blocks(row.limit) > self.pool.size:
            if not is_alone:
                return None
            if not self._grow(num_blocks(row.limit)):
                row.limit = max(self.pool.size * BLOCK_TOKENS, len(row.tokens) + 1)
        num_read = len(row.tokens) - 1
        keys = block_keys(row, [], num_read // BLOCK_TOKENS)
        shared = self.pool.share(keys)
        num_wanted = num_blocks(len(row.tokens)) - len(shared)
        if num_wanted + len(self.running) > self.pool.num_free:
            self.pool.release(shared)
            return None
        blocks = shared + self.pool.take(num_wanted)
        return Context(row, blocks=blocks, keys=keys, num_read=len(shared) * BLOCK_TOKENS)

    def _read(self, context: Context, plan: Plan) -> bool:
        """Plans to read as much as the pass has room for. Returns whether nothing but the last token is left."""
        start, whole = context.num_read, context.position
        full = whole - whole % BLOCK_TOKENS
        tail = (b"".join(context.keys[-1:]), context.row.key(full, whole))
        if full <= start < whole and tail in plan.tails:
            plan.copies.append(Copy(context, full, whole - full, plan.tails[tail]))
            context.num_read = whole
            return True
        end = min(whole, start + self._pass_tokens - plan.num_tokens)
        end -= end % BLOCK_TOKENS if end < whole else 0
        if end > start:
            plan.reads.append(Read(context, start, end, plan.num_tokens))
            plan.num_tokens += end - start
            context.num_read = end
            self._name_blocks(context, start, end)
        if end == whole and full < whole:
            plan.tails[tail] = plan.num_tokens - (whole - full)
        return end >= whole

    def _name_blocks(self, context: Context, start: int, end: int) -> None:
        """Has the blocks found that are full with the tokens from `start`, where a block begins, to `end`."""
        if context.is_current:
            blocks = slice(start // BLOCK_TOKENS, end // BLOCK_TOKENS)
            context.keys = block_keys(context.row, context.keys, blocks.stop)
            for block, key in zip(context.blocks[blocks], context.keys[blocks], strict=True):
                self.pool.name(block, key)
