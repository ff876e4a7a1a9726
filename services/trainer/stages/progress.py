"""Says where a stage is, on disk: a trainer that is killed in the middle of one goes on from there.

One file, replaced as a whole. It is of one stage of one start: a file of another recipe, or of another version that
stages began from, is none.
"""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perilune.errors import StateError
from services.trainer.versions.checkpoint import flush

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """A stage between two steps, in types that torch.load takes with weights_only."""

    start: str  # what the stages began from: a digest of the recipe and the version
    index: int  # of the stage in the recipe
    step: int  # that comes next
    model: dict[str, Any]
    optimizer: dict[str, Any]
    reference: Any
    metrics: dict[str, float]  # of the stages before, and of this one's last step


class ProgressFile:
    """The progress of a run's stages; nothing is kept where there is no path."""

    def __init__(self, path: Path | None = None, start: str = "") -> None:
        self._path, self.start = path, start

    def save(self, progress: Progress) -> None:
        """Replaces what is kept. StateError if it cannot be written."""
        if self._path is None:
            return
        temporary = self._path.with_name(f"{self._path.name}.writing")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(vars(progress), temporary)
            flush(temporary)
            temporary.rename(self._path)
            flush(self._path.parent)
        except (OSError, RuntimeError) as error:  # RuntimeError: what torch makes of a full disk
            raise StateError(
                f"cannot keep the stage's progress in {self._path}: {error}; make room for it, and resume the run"
            ) from error

    def load(self) -> Progress | None:
        """Returns what was kept of these stages; None if nothing was, or it cannot be read: they then begin again."""
        if self._path is None or not self._path.exists():
            return None
        try:
            progress = Progress(**torch.load(self._path, map_location="cpu", weights_only=True))
        # A file that is cut short, no archive, of other types, or of a version with other fields.
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
            logger.warning("%s is damaged, the stages begin again: %s", self._path, error)
            return None
        return progress if progress.start == self.start else None

    def remove(self) -> None:
        """Forgets it: what the stages made is kept otherwise."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
