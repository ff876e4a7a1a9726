"""Checkpoints: a version as a Hugging Face model folder, with the trainer's own state beside the weights.

A folder appears whole or not at all: it is written under another name, flushed to disk, then renamed. Training draws
no random numbers, so weights, optimiser and version are all there is to restore.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from perilune.errors import InvalidInputError, NoRoomError, StateError
from services.trainer.policy.model import Policy
from services.trainer.policy.sources import load_policy
from services.trainer.versions.room import is_full

STATE_FILE = "trainer.pt"
NUM_KEPT = 2  # newest ones; version 0 stays too, to compare with


@dataclass(frozen=True)
class TrainerState:
    """State that a version needs beside its weights, in types that torch.load takes with weights_only."""

    number: int
    origin: str  # what the run started from, as `origin_of` says
    metrics: dict[str, float]
    published_digests: list[str]  # of the versions before this one: their tokens may still be on the way
    optimizer: dict[str, Any]
    adapter: dict[str, Tensor] = field(default_factory=dict)  # what is trained, where the weights are with it merged in
    refused: list[dict[str, Any]] = field(default_factory=list)  # of the batch it was made from: `Refused`, as mappings


class Checkpoints:
    """The checkpoints of one run in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path_of(self, number: int) -> Path:
        """The folder of a version, whether it is there or not."""
        return self.folder / f"v{number:06d}"

    def numbers(self) -> list[int]:
        """The versions that are there, oldest first; half-written folders are none."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        return sorted(int(name[1:]) for name in names if re.fullmatch(r"v\d{6,}", name))

    def newest(self, at_most: int) -> int | None:
        """The newest version that is there, up to this one; None if there is none."""
        return max((number for number in self.numbers() if number <= at_most), default=None)

    def save(self, policy: Policy, state: TrainerState, weights: Mapping[str, Tensor] | None = None) -> Path:
        """Writes a version durably, and removes those that are not come back to. `weights`: if not the model's own.

        StateError if it cannot be written; NoRoomError if that is for a full disk.
        """
        target = self.path_of(state.number)
        try:
            self._write(target, policy, state, weights)
            self._remove_old()
        # OSError, and what torch and safetensors make of one: no room, no right, no disk.
        except (OSError, RuntimeError, SafetensorError) as error:
            kind = NoRoomError if is_full(self.folder, error) else StateError
            shutil.rmtree(_temporary(target), ignore_errors=True)
            raise kind(
                f"cannot write the checkpoint {target}: {error}; make room for it, or move what is in its way, and "
                "resume the run"
            ) from error
        return target

    def _write(self, target: Path, policy: Policy, state: TrainerState, weights: Mapping[str, Tensor] | None) -> None:
        temporary = _temporary(target)
        for leftover in (temporary, target):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        policy.save(temporary, weights)
        torch.save(vars(state), temporary / STATE_FILE)
        for file in [*temporary.iterdir(), temporary]:
            flush(file)
        temporary.rename(target)
        flush(self.folder)

    def load(
        self, number: int, origin: str, is_adapted: bool = False, committed_digests: Collection[str] = ()
    ) -> tuple[Policy, TrainerState]:
        """A version with its state; of a run that trains an adapter, its base, which is version 0.

        A checkpoint that descends from a version that the run has committed is the run's own, whatever its origin says:
        older versions of Perilune digested other keys.

        Raises:
            InvalidInputError: it belongs to a run that started from something else.
            StateError, NotFoundError: it is damaged.
        """
        path = self.path_of(number)
        state = _read_state(path / STATE_FILE)
        if state.origin != origin and set(committed_digests).isdisjoint(state.published_digests):
            raise InvalidInputError(
                f"{path} comes from a recipe with another model, seed or stages before RL; move {self.folder} away, or "
                "take another run id"
            )
        return load_policy(str(self.path_of(0) if is_adapted else path)), state

    def _remove_old(self) -> None:
        for number in self.numbers()[:-NUM_KEPT]:
            if number != 0:
                shutil.rmtree(self.path_of(number))


def _read_state(file: Path) -> TrainerState:
    try:
        return TrainerState(**torch.load(file, map_location="cpu", weights_only=True))
    # A file that is missing, cut short, no archive, of other types, or of a version with other fields.
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
        raise StateError(
            f"the checkpoint {file.parent} is damaged ({type(error).__name__}: {error}); move it away, and resume the "
            "run: it goes on from the one before"
        ) from error


def flush(path: Path) -> None:
    """Has a file, or the names in a folder, written to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(target: Path) -> Path:
    return target.with_name(f"{target.name}.writing")
