"""What was given up: listed, tried again, forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from perilune.api.master.v1.master_pb2 import KeptLetter
from perilune.api.trajectory.v1.trajectory_pb2 import DeadLetter
from perilune.errors import NotFoundError, StateError
from perilune.ids import SampleId
from perilune.runtime.bus import Bus, is_cut
from perilune.runtime.subjects import DEAD, DEAD_SUBJECT
from services.master.intake import lost_by
from services.master.registry import Registry
from services.master.store import Store

MAX_LISTED = 500


class DeadLetters:
    """The dead letters that the bus keeps, and the samples that they ended."""

    def __init__(self, bus: Bus, store: Store, registry: Registry) -> None:
        self._bus, self._store, self._registry = bus, store, registry

    async def page(
        self, after: int, limit: int, run_id: str, *, with_payloads: bool
    ) -> tuple[Sequence[KeptLetter], int]:
        """The next letters behind a number, and the last number that was looked at. UnavailableError."""
        found = await self._bus.letters_from(after + 1, min(limit or 100, MAX_LISTED))
        kept = [_kept(*each, with_payload=with_payloads) for each in found if run_id in ("", each[2].run_id)]
        return kept, found[-1][0] if found else 0

    async def retry(self, number: int) -> int:
        """Gives a message another try; returns how many samples are awaited again.

        Raises:
            NotFoundError: no such letter.
            StateError: the batch of its samples is settled, or what is kept of it was cut.
            UnavailableError: the bus does not answer.
        """
        letter = await self._letter(number)
        samples = await self._samples_of(letter)
        num_revived = await self._store.revive(samples) if samples else 0
        if samples and not num_revived:
            raise StateError(f"letter {number}: the batch of its samples is settled, or they came to something since")
        if not samples:
            await self._publish_again(number, letter)
        await self._bus.delete(DEAD, number)
        self._registry.dispatch_again(letter.run_id)
        return num_revived

    async def drop(self, numbers: Sequence[int]) -> int:
        """Forgets letters; returns how many there were. UnavailableError."""
        there = [number for number in numbers if await self._bus.stored(DEAD, number) is not None]
        for number in there:
            await self._bus.delete(DEAD, number)
        return len(there)

    async def _letter(self, number: int) -> DeadLetter:
        for found, _, letter in await self._bus.letters_from(number, 1):
            if found == number:
                return letter
        raise NotFoundError(f"there is no dead letter {number}; `perilune dead list` shows those there are")

    async def _samples_of(self, letter: DeadLetter) -> list[SampleId]:
        samples, group_id = lost_by(letter)
        return await self._store.samples_of(group_id) if group_id else samples

    async def _publish_again(self, number: int, letter: DeadLetter) -> None:
        if letter.subject == DEAD_SUBJECT:
            raise StateError(f"letter {number} is itself unreadable; it can only be dropped")
        if is_cut(letter):
            raise StateError(f"letter {number} holds only the beginning of its message, which was too large; drop it")
        await self._bus.publish_again(letter, number)


def _kept(number: int, unix_time: float, letter: DeadLetter, *, with_payload: bool) -> KeptLetter:
    kept = KeptLetter(number=number, time_unix_ns=int(unix_time * 1e9), num_payload_bytes=len(letter.payload))
    kept.letter.CopyFrom(letter)
    if not with_payload:
        kept.letter.ClearField("payload")
    return kept
