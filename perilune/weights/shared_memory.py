"""Trainer and engine as sidecars of one pod that take turns on its device (k1.5 §2.6.3).

    trainer   trains ▸ shares the version ▸ puts its state away ▸ leaves … waits for its batch … takes ▸ brings back ▸
    engine                                                       ▸ takes ▸ starts ▸ swaps in ▸ generates … leaves ▸

What they share is a folder in shared memory (PERILUNE_HYBRID, such as /dev/shm/perilune): two lock files, of which one
is the device and the other the place of who is next, and the newest version of each run. Locks are the kernel's: the
turn of a process that dies is over, however it died. Who has the device gives it up when another is next; the engine
stops in the middle of what it writes for that, and goes on with it in its next turn.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.api.weights.v1.weights_pb2 import Manifest
from perilune.errors import UnavailableError, WeightStreamError
from perilune.runtime.device_lock import POLL_S
from perilune.weights.receiver import StagedVersion
from perilune.weights.tensors import RawTensor, State, check_layout, digest_of

SOURCE = "shared memory"


@dataclass(frozen=True)
class SharedVersions:
    """The newest version of one run, in shared memory. A version that somebody has mapped stays until they let go."""

    folder: Path

    @staticmethod
    def of(hybrid: Path, run_id: str) -> SharedVersions:
        """Finds a run's folder in the shared memory of a hybrid pod."""
        return SharedVersions(hybrid / "versions" / run_id)

    def put(self, state: State, model_files: Mapping[str, bytes]) -> State:
        """Writes a version, and gives it back as it lies there: the copy that was given may go.

        UnavailableError if there is no room for it.
        """
        manifest = Manifest()
        manifest.CopyFrom(state.manifest)
        manifest.model_files.update(model_files)
        data = self._data_of(manifest)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with data.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, manifest.num_bytes))  # or fail now if there is no room
                for tensor in state.tensors:
                    file.write(tensor.data)
            (self.folder / "writing").write_bytes(manifest.SerializeToString())
        except OSError as error:
            raise UnavailableError(
                f"version {manifest.version.number} cannot be written to {self.folder}: {error.strerror}; give the pod "
                "more shared memory"
            ) from error
        (self.folder / "writing").rename(self.folder / "manifest")
        for old in self.folder.glob("v*"):
            if old != data:
                old.unlink()
        return State(state.manifest, _mapped(data, manifest))

    def newest(self) -> Manifest | None:
        """Reads the newest version's manifest; None if there is none yet."""
        try:
            return Manifest.FromString((self.folder / "manifest").read_bytes())
        except FileNotFoundError:
            return None

    def read(self, manifest: Manifest) -> StagedVersion | None:
        """A version, mapped and checked; None if a newer one took its place meanwhile.

        WeightStreamError if it is not what its digest says.
        """
        try:
            tensors = _mapped(self._data_of(manifest), manifest)
        except FileNotFoundError:
            return None
        check_layout(manifest)
        for info, tensor in zip(manifest.tensors, tensors, strict=True):
            if digest_of(tensor.data) != info.digest:
                raise WeightStreamError(f"tensor {info.name} in {self.folder} is not what its digest says")
        return StagedVersion(manifest, tensors, dict(manifest.model_files))

    def remove_others(self) -> None:
        """Forgets the versions of other runs."""
        for other in self.folder.parent.glob("*"):
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)

    def _data_of(self, manifest: Manifest) -> Path:
        return self.folder / f"v{manifest.version.number:06d}-{manifest.version.digest[:16]}"


def _mapped(path: Path, manifest: Manifest) -> list[RawTensor]:
    with path.open("rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return [
        RawTensor(info.name, info.dtype, tuple(info.shape), view[info.offset : info.offset + info.num_bytes])
        for info in manifest.tensors
    ]


class SharedReceiver:
    """A `Receiver` whose versions come through shared memory, with no connection."""

    source = SOURCE

    def __init__(self, versions: SharedVersions) -> None:
        self._versions = versions

    def move(self, addresses: Sequence[str], rank_addresses: Sequence[str] = ()) -> None:
        """Does nothing: the trainer is in the same pod."""

    def expect(self, version: PolicyVersion) -> None:
        """Does nothing: versions are polled all the time."""

    async def versions(self) -> AsyncGenerator[StagedVersion]:
        """Every version that is there when it is looked for, for ever. WeightStreamError for one that is damaged."""
        served = None
        while True:
            manifest = self._versions.newest()
            if manifest and manifest.version != served:
                staged = await asyncio.to_thread(self._versions.read, manifest)
                if staged:
                    served = manifest.version
                    yield staged
            await asyncio.sleep(POLL_S)
