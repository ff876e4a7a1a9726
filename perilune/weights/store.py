"""Versions on disk: the newest few, those that are pinned, and what they are changes of.

A kept version is a file of the stream's own frames, whole or as the change that was sent, so what is read back passes
the same checks as what arrives. A pin is an empty file beside it, made by any process that can write to the folder,
also while a trainer works there.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from perilune.api.trajectory.v1.trajectory_pb2 import PolicyVersion
from perilune.api.weights.v1.weights_pb2 import Commit, Manifest
from perilune.dtypes import ITEM_TYPES
from perilune.errors import NotFoundError, WeightStreamError
from perilune.policies import own_name
from perilune.weights.adapted import BASE_DIGEST, CONFIG_FILE
from perilune.weights.delta import Delta
from perilune.weights.frames import (
    Stage,
    chunk_frame,
    commit_frame,
    manifest_frame,
    pieces,
    read_frame,
)
from perilune.weights.quantized import dequantized
from perilune.weights.tensors import State, manifest_of

SUFFIX, PIN_SUFFIX, FILES_FOLDER = ".frames", ".pin", "model_files"
WEIGHTS_FILE, ADAPTER_FILE = "model.safetensors", "adapter_model.safetensors"


@dataclass(frozen=True)
class KeptVersion:
    """A version on disk."""

    path: Path
    version: PolicyVersion
    base: PolicyVersion | None  # None: the file holds it whole
    num_bytes: int  # of the file
    is_pinned: bool


class VersionStore:
    """The versions of one run, in a folder of their own."""

    def __init__(self, folder: Path, num_kept: int = 1) -> None:
        """`num_kept`: how many of the newest are kept, beside those that are pinned."""
        self.folder = folder
        self._num_kept = num_kept

    def versions(self) -> list[KeptVersion]:
        """Lists the versions in the order of writing, without half-written ones."""
        paths = self.folder.glob(f"*{SUFFIX}") if self.folder.is_dir() else []
        return [_describe(path) for path in sorted(paths, key=_order)]

    def add(self, state: State, delta: Delta | None, model_files: Mapping[str, bytes]) -> None:
        """Writes a version, and removes those no longer needed. A version that is there already stays."""
        there = self.versions()
        if any(kept.version == state.version for kept in there):
            return
        if not there:
            self._write_files(model_files)
        chain = _chain(there, delta.manifest.base) if delta else None
        # A chain that is longer than the whole would be read more slowly, and its first link be kept for too long.
        if delta and chain and sum(link.num_bytes for link in chain[1:]) + delta.num_bytes < state.manifest.num_bytes:
            self._write(delta.manifest, [chunk_frame(*piece) for piece in pieces([delta.payload])])
        else:
            self._write_whole(state)
        self._remove_old()

    def load(self, number: int) -> State:
        """A version, verified. NotFoundError if it is not kept; WeightStreamError if its file is damaged."""
        chain = _chain(self.versions(), self._find(number).version)
        if chain is None:
            raise WeightStreamError(f"version {number} is kept as a change of a version that is not there any more")
        state = None
        for link in chain:
            state = _read(link.path, state)
        assert state is not None  # a chain has a first link
        return state

    def model_files(self) -> dict[str, bytes]:
        """The small files of the model's folder: configuration and tokenizer."""
        return {path.name: path.read_bytes() for path in sorted((self.folder / FILES_FOLDER).iterdir())}

    def pin(self, number: int, pinned: bool = True) -> None:
        """Keeps a version whatever comes after it, or no longer. NotFoundError if it is not kept."""
        mark = self._find(number).path.with_suffix(PIN_SUFFIX)
        if pinned:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)

    def export(self, number: int, folder: Path) -> None:
        """Writes a version as a Hugging Face model folder, its weights in the dtype that engines hold.

        An adapter's version becomes an adapter's folder as PEFT has it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        state, files = self.load(number), self.model_files()
        plain = [raw for raw in dequantized(state.tensors) if raw.name != BASE_DIGEST]
        manifest = manifest_of(number, plain)
        manifest.version.CopyFrom(state.version)
        write_safetensors(State(manifest, plain), folder / (ADAPTER_FILE if CONFIG_FILE in files else WEIGHTS_FILE))
        for name, content in files.items():
            (folder / name).write_bytes(content)

    def _find(self, number: int) -> KeptVersion:
        there = self.versions()
        found = [kept for kept in there if kept.version.number == number]
        if not found:
            numbers = ", ".join(str(kept.version.number) for kept in there) or "none"
            raise NotFoundError(f"version {number} is not kept in {self.folder}; kept are {numbers}")
        return found[-1]  # of two with one number the later one: the run went back and came there again

    def _write_whole(self, state: State) -> None:
        manifest = Manifest()
        manifest.CopyFrom(state.manifest)
        manifest.ClearField("model_files")
        frames = (chunk_frame(*piece) for piece in pieces([tensor.data for tensor in state.tensors]))
        self._write(manifest, frames)

    def _write(self, manifest: Manifest, chunks: Iterator[bytes] | list[bytes]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{_stem(manifest.version)}{SUFFIX}"
        temporary = target.with_suffix(".writing")
        with temporary.open("wb") as file:
            for frame in (manifest_frame(manifest), *chunks, commit_frame(manifest.version)):
                file.write(struct.pack("<Q", len(frame)) + frame)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)

    def _write_files(self, model_files: Mapping[str, bytes]) -> None:
        folder = self.folder / FILES_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in model_files.items():
            (folder / name).write_bytes(content)

    def _remove_old(self) -> None:
        there = self.versions()
        wanted = [*there[-self._num_kept :], *(kept for kept in there if kept.is_pinned)]
        needed = {link.path for kept in wanted for link in _chain(there, kept.version) or [kept]}
        for kept in there:
            if kept.path not in needed:
                kept.path.unlink()


def write_safetensors(state: State, path: Path) -> None:
    """A version as one safetensors file, with its digest in the metadata.

    The format is the length of a JSON header, the header, and the tensors; the library's own writer wants tensors of
    some framework.
    """
    metadata = {"format": "pt", "version": str(state.version.number), "digest": state.version.digest}
    if name := own_name(state.version):
        metadata["policy"] = name
    header: dict[str, object] = {"__metadata__": metadata}
    for info in state.manifest.tensors:
        place = [info.offset, info.offset + info.num_bytes]
        header[info.name] = {
            "dtype": ITEM_TYPES[info.dtype].safetensors, "shape": list(info.shape), "data_offsets": place
        }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in state.tensors:
            file.write(tensor.data)


def _stem(version: PolicyVersion) -> str:
    """A version's file name without its ending: `v000003-<digest>`, after the policy's name if it has its own."""
    stem, name = f"v{version.number:06d}-{version.digest}", own_name(version)
    return f"{name}-{stem}" if name else stem


def _chain(there: list[KeptVersion], version: PolicyVersion) -> list[KeptVersion] | None:
    """The files to read one after the other, the first of them whole; None if one is missing."""
    chain: list[KeptVersion] = []
    wanted: PolicyVersion | None = version
    while wanted is not None:
        link = next((kept for kept in there if kept.version == wanted and kept not in chain), None)
        if link is None:
            return None
        chain.append(link)
        wanted = link.base
    return chain[::-1]


def _describe(path: Path) -> KeptVersion:
    manifest = read_frame(next(_frames(path)))
    if not isinstance(manifest, Manifest):
        raise WeightStreamError(f"{path} does not begin with a manifest; move it away")
    base = manifest.base if manifest.HasField("base") else None
    is_pinned = path.with_suffix(PIN_SUFFIX).exists()
    return KeptVersion(path, manifest.version, base, path.stat().st_size, is_pinned)


def _order(path: Path) -> tuple[int, str]:
    """The order of writing: a run that went back writes lower numbers after higher ones."""
    return path.stat().st_mtime_ns, path.name


def _read(path: Path, base: State | None) -> State:
    try:
        frames = _frames(path)
        manifest = read_frame(next(frames))
        if not isinstance(manifest, Manifest):
            raise WeightStreamError("it does not begin with a manifest")
        stage = Stage(manifest, base)
        for raw in frames:
            frame = read_frame(raw)
            if isinstance(frame, Commit):
                return stage.finish(frame)
            if isinstance(frame, Manifest):
                raise WeightStreamError("it holds two manifests")
            stage.add(frame)
        raise WeightStreamError("it ends without a commit")
    except WeightStreamError as error:
        raise WeightStreamError(f"{path} is damaged: {error}") from error


def _frames(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while head := file.read(8):
            size = struct.unpack("<Q", head)[0] if len(head) == 8 else 1 << 62
            frame = file.read(size) if size < 1 << 32 else b""
            if len(frame) != size:
                raise WeightStreamError(f"{path} ends within a frame")
            yield frame
