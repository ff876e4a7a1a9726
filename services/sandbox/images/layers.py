"""Unpacks layers into a folder, one upon the other, whatever they hold: nothing is ever written outside the folder.

Every path is resolved by the kernel beneath the folder, with the folder as its root, so that links that lower layers
made lead within it. Owners become ours, and no one has rights beyond reading and running: no set-user-id, no
device, no pipe, no socket, no extended attribute. Whiteouts remove what lower layers had. (OCI image specification,
"Image Layer Filesystem Changeset".)
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator

from services.sandbox.images.archive import DamagedImageError
from services.sandbox.jail import system

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


class Unpacker:
    """A folder that layers come into."""

    def __init__(self, folder: int) -> None:
        self._root = folder
        self.num_bytes = 0

    def apply(self, entries: Iterable[tarfile.TarInfo], layer: tarfile.TarFile) -> None:
        """Lays one layer over those before. DamagedImageError: an entry that no honest layer has."""
        made: set[str] = set()  # of this layer; whiteouts are about those below
        for entry in entries:
            path = _path(entry.name)
            if not path:
                continue
            folder, _, name = path.rpartition("/")
            try:
                with self._parent(folder) as parent:
                    if name == _OPAQUE:
                        self._empty(parent, folder, made)
                    elif name.startswith(_WHITEOUT):
                        hidden = name.removeprefix(_WHITEOUT)
                        if f"{folder}/{hidden}".lstrip("/") not in made and hidden not in ("", ".", ".."):
                            _remove(parent, hidden)
                    elif self._make(parent, name, entry, layer):
                        made.update(_ancestors(path))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
                    raise
                raise DamagedImageError(f"its entry {entry.name!r} cannot be unpacked: {error.strerror}") from error

    @contextlib.contextmanager
    def _parent(self, folder: str) -> Iterator[int]:
        """The folder, made where it is missing. Links in it are followed as if ours were the root."""
        try:
            descriptor = self._open(folder)
        except FileNotFoundError:
            above, _, name = folder.rpartition("/")
            with self._parent(above) as parent, contextlib.suppress(FileExistsError):  # a link that leads nowhere
                os.mkdir(name, 0o755, dir_fd=parent)
            descriptor = self._open(folder)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self, folder: str) -> int:
        return system.open_within(self._root, os.fsencode(folder) or b".", os.O_PATH | os.O_DIRECTORY)

    def _make(self, parent: int, name: str, entry: tarfile.TarInfo, layer: tarfile.TarFile) -> bool:
        """Makes what the entry is; whether it was of a kind that we make."""
        if entry.isdir():
            _make_folder(parent, name, entry.mode)
        elif entry.issym():
            _remove(parent, name)
            os.symlink(entry.linkname, name, dir_fd=parent)
        elif entry.islnk():
            self._link(parent, name, entry.linkname)
        elif entry.isreg():
            _remove(parent, name)
            self._write(parent, name, entry, layer)
        else:
            return False
        return True

    def _link(self, parent: int, name: str, target: str) -> None:
        folder, _, other = _path(target).rpartition("/")
        with self._parent(folder) as source:
            if os.path.sameopenfile(source, parent) and other == name:
                return
            _remove(parent, name)
            os.link(other, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def _write(self, parent: int, name: str, entry: tarfile.TarInfo, layer: tarfile.TarFile) -> None:
        content = layer.extractfile(entry)
        assert content
        mode = 0o400 | entry.mode & 0o777
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
            shutil.copyfileobj(content, file)
            os.fchmod(file.fileno(), mode)
            self.num_bytes += file.tell()

    def _empty(self, parent: int, folder: str, made: set[str]) -> None:
        with _listing(parent) as names:
            for name in names:
                if f"{folder}/{name}".lstrip("/") not in made:
                    _remove(parent, name)


def _path(name: str) -> str:
    """A path from the image's root, without its leading slash. DamagedImageError: it leads upwards."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise DamagedImageError(f"its entry {name!r} leads out of the image")
    return "/".join(parts)


def _ancestors(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def _make_folder(parent: int, name: str, mode: int) -> None:
    """A folder, or new rights for the one that is there; ours to write into, for the layers to come."""
    mode = 0o700 | mode & (0o777 | stat.S_ISVTX)
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            _remove(parent, name)
            os.mkdir(name, 0o700, dir_fd=parent)
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _remove(parent: int, name: str) -> None:
    """Removes whatever is there, with all below it; through no link."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        shutil.rmtree(name, dir_fd=parent)


@contextlib.contextmanager
def _listing(folder: int) -> Iterator[list[str]]:
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield os.listdir(descriptor)
    finally:
        os.close(descriptor)
