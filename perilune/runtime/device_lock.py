"""One device that two processes use in turn."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from perilune.errors import InvalidInputError, UnavailableError

POLL_S = 0.01


def never() -> bool:
    """The `should_stop` of work that is not interrupted."""
    return False


class DeviceLock:
    """The pod's device, from one process's side: it is there for one of them at a time."""

    def __init__(self, folder: Path) -> None:
        """InvalidInputError if the folder cannot be used."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._device, self._wanted = (
                os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660) for name in ("device", "wanted")
            )
        except OSError as error:
            raise InvalidInputError(f"PERILUNE_HYBRID: {folder} cannot be used: {error.strerror}") from error

    def try_take(self) -> bool:
        """Takes the device if it is free. If not, this process is the next to have it, unless another already is."""
        if not _try(self._wanted, fcntl.LOCK_EX) or not _try(self._device, fcntl.LOCK_EX):
            return False
        fcntl.flock(self._wanted, fcntl.LOCK_UN)
        return True

    def take(self, should_stop: Callable[[], bool] = never) -> None:
        """Waits for the device. UnavailableError if `should_stop` says so before."""
        while not self.try_take():
            if should_stop():
                fcntl.flock(self._wanted, fcntl.LOCK_UN)
                raise UnavailableError("stopped while it waited for the device")
            time.sleep(POLL_S)

    def leave(self) -> None:
        """Gives the device up; nothing of this process's may be on it any more."""
        fcntl.flock(self._device, fcntl.LOCK_UN)

    def is_wanted(self) -> bool:
        """Tests whether another process waits for it; for its holder to ask."""
        if _try(self._wanted, fcntl.LOCK_EX):
            fcntl.flock(self._wanted, fcntl.LOCK_UN)
            return False
        return True

    def close(self) -> None:
        """Leaves the device, if it is had, for good."""
        os.close(self._device)
        os.close(self._wanted)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
