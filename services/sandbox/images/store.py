"""The folder of images: a folder each, by name, with its root file system and what is known of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from perilune.errors import AlreadyExistsError, InvalidInputError, NotFoundError, StateError
from services.sandbox.images.archive import open_archive, open_layer, read_manifest
from services.sandbox.images.layers import Unpacker
from services.sandbox.job import Image

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_ABOUT, _ROOT = "image.json", "root"
_UNFINISHED = ".unfinished-"


class ImageStore:
    """The images of a folder. An image in use is held by a shared lock, and not removed meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list(self) -> list[Image]:
        """All images, by name."""
        if not self.folder.exists():
            return []
        names = sorted(path.name for path in self.folder.iterdir() if (path / _ABOUT).exists())
        return [self._read(name) for name in names if not name.startswith(".")]

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[Image]:
        """An image, held. InvalidInputError: there is none of this name; the message says which there are."""
        try:
            descriptor = self._lock(name, fcntl.LOCK_SH)
        except FileNotFoundError:
            raise InvalidInputError(self._unknown(name)) from None
        try:
            yield self._read(name)
        finally:
            os.close(descriptor)

    def add(self, name: str, archive: Path) -> Image:
        """Unpacks an archive into the folder.

        It is there as a whole or not at all.

        Raises:
            InvalidInputError: no name for an image, or the archive is none, damaged, or for another kind of machine.
            AlreadyExistsError: the name is taken.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInputError(f"{name[:200]!r} is no name for an image: letters, digits and . _ - : alone")
        if (self.folder / name).exists():
            raise AlreadyExistsError(
                f"there is an image {name!r} already; remove it first (`perilune image remove {name}`)"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self._remove_unfinished()
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.folder))
        with _locked(unfinished):
            try:
                about = _unpack(archive, unfinished / _ROOT)
                (unfinished / _ABOUT).write_text(json.dumps(about))
                unfinished.chmod(0o755)
                unfinished.rename(self.folder / name)
            except OSError as error:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise StateError(f"{archive} cannot be unpacked into {self.folder}: {error.strerror}") from error
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
        return self._read(name)

    def remove(self, name: str) -> None:
        """Removes an image. NotFoundError; StateError: a job is using it."""
        try:
            descriptor = self._lock(name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            raise NotFoundError(self._unknown(name)) from None
        except BlockingIOError:
            raise StateError(f"a job is using image {name!r}; try again when it has ended") from None
        try:
            gone = self.folder / f"{_UNFINISHED}{name}"
            (self.folder / name).rename(gone)
            shutil.rmtree(gone)
        finally:
            os.close(descriptor)

    def _lock(self, name: str, kind: int) -> int:
        """A descriptor that holds the lock. FileNotFoundError: there is no such image (any more)."""
        if not _NAME.fullmatch(name):
            raise FileNotFoundError(name)
        descriptor = os.open(self.folder / name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, kind)
            os.stat(self.folder / name)  # it may have been removed while we waited
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _read(self, name: str) -> Image:
        about = json.loads((self.folder / name / _ABOUT).read_text())
        root = self.folder / name / _ROOT
        return Image(name, about["digest"], root, about["environment"], about["num_bytes"])

    def _unknown(self, name: str) -> str:
        known = ", ".join(image.name for image in self.list()) or "none"
        return (
            f"there is no image {name[:200]!r} in {self.folder} (there: {known}); "
            "add it with `perilune image add NAME ARCHIVE`"
        )

    def _remove_unfinished(self) -> None:
        """Removes what an addition or a removal that was killed has left."""
        for folder in self.folder.glob(f"{_UNFINISHED}*"):
            with contextlib.suppress(OSError), _locked(folder):
                shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """BlockingIOError: somebody else has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _unpack(path: Path, root: Path) -> dict[str, object]:
    root.mkdir(mode=0o755)
    root.chmod(0o755)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        unpacker = Unpacker(descriptor)
        with open_archive(path) as archive:
            manifest = read_manifest(archive)
            for layer in manifest.layers:
                with open_layer(archive, layer) as tar:
                    unpacker.apply(tar, tar)
    finally:
        os.close(descriptor)
    return {
        "digest": manifest.digest,
        "environment": dict(manifest.environment),
        "num_bytes": unpacker.num_bytes,
    }
