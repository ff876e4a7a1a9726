"""The trainer in a hybrid pod (`perilune.weights.shared_memory`): its state goes to shared memory and back.

On a machine without accelerators the device is the process's own memory: it is given back to the system, so that the
engine has room for itself. With an accelerator the same tensors leave it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from perilune.errors import UnavailableError
from perilune.models.machine import give_memory_back
from perilune.runtime.device_lock import DeviceLock
from perilune.weights.shared_memory import SharedVersions
from services.trainer.versions.snapshot import PublishedVersion

logger = logging.getLogger(__name__)

ALIGNMENT_BYTES = 64


@dataclass(frozen=True)
class _Place:
    """Describes where a tensor lies while it is away."""

    tensor: Tensor
    device: torch.device
    away: Tensor


class Offload:
    """Tensors that are put away in a file of shared memory, and brought back to where they were."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: list[_Place] = []

    def put_away(self, tensors: Sequence[Tensor]) -> int:
        """Copies tensors to the file and frees their memory; how many bytes that were.

        UnavailableError if there is no room; nothing was freed then.
        """
        offsets, num_bytes = [], 0
        for tensor in tensors:
            offsets.append(num_bytes)
            num_bytes += -(-tensor.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        whole = self._file(num_bytes)
        places = []
        for tensor, offset in zip(tensors, offsets, strict=True):
            away = whole[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            away.copy_(tensor.data)
            places.append(_Place(tensor, tensor.device, away))
        for place in places:
            place.tensor.data = place.tensor.data.new_empty(0)
        self._places = places
        give_memory_back()
        return num_bytes

    def bring_back(self) -> None:
        """The tensors are what they were, and the file is gone."""
        for place in self._places:
            place.tensor.data = place.away.to(place.device, copy=True)
        self.forget()

    def forget(self) -> None:
        """Removes the file; tensors that are still away are lost."""
        self._places = []
        self._path.unlink(missing_ok=True)

    def _file(self, num_bytes: int) -> Tensor:
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, num_bytes))
        except OSError as error:
            raise UnavailableError(
                f"{num_bytes} bytes of the trainer's cannot be put away in {self._path}: {error.strerror}; "
                "give the pod more shared memory"
            ) from error
        return torch.from_file(str(self._path), shared=True, size=num_bytes, dtype=torch.uint8)


class Turns:
    """Describes when a run of this trainer has the device. Without a hybrid pod it always has, and every call
    returns at once."""

    def __init__(self, hybrid: Path | None, run_id: str, should_stop: Callable[[], bool]) -> None:
        """InvalidInputError if the folder cannot be used."""
        self._device = DeviceLock(hybrid) if hybrid else None
        self._versions = SharedVersions.of(hybrid, run_id) if hybrid else None
        self._offload = Offload(hybrid / "trainer") if hybrid else None
        self._should_stop = should_stop

    def __enter__(self) -> Turns:
        return self

    def begin(self) -> None:
        """Waits for the first turn."""
        if self._device and self._versions:
            self._device.take(self._should_stop)
            self._versions.remove_others()

    def share(self, version: PublishedVersion) -> PublishedVersion:
        """The version in shared memory, in place of the trainer's own copy."""
        if self._versions is None:
            return version
        state = self._versions.put(version.state, version.model_files)
        return PublishedVersion(state, version.delta, version.model_files)

    def leave(self, tensors: Sequence[Tensor]) -> None:
        """Puts away what training needs and hands the device over."""
        if self._device and self._offload:
            started = time.perf_counter()
            num_bytes = self._offload.put_away(tensors)
            self._device.leave()
            logger.info("left the device: %d MB put away in %.2f s", num_bytes >> 20, time.perf_counter() - started)

    def take(self) -> None:
        """Takes the device and brings everything back."""
        if self._device and self._offload:
            started = time.perf_counter()
            self._device.take(self._should_stop)
            taken = time.perf_counter()
            self._offload.bring_back()
            back_s = time.perf_counter() - taken
            logger.info("took the device in %.2f s, all back after %.2f s", taken - started, back_s)

    def __exit__(self, *_: object) -> None:
        """This run is over here, for whatever reason. Its version stays: what is sampled may go on with it."""
        if self._device and self._offload:
            self._offload.forget()
            self._device.close()
