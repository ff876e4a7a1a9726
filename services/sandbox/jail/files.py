"""Files into the work folder before the program starts, and out of it after everything in it was ended."""

from __future__ import annotations

import contextlib
import fnmatch
import math
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.sandbox.jail import system
from services.sandbox.jail.protocol import read_exactly

_MAX_DEPTH = 32  # folders in folders; what lies deeper is not brought back


@dataclass(frozen=True)
class Found:
    """A regular file in the work folder, open for reading."""

    path: str
    size: int
    executable: bool
    descriptor: int


def lay(files: Sequence[tuple[str, int, bool]], source: int, folder: str) -> None:
    """Writes files (path, size, executable) into the folder, their contents read from `source` one after the other."""
    for path, size, executable in files:
        target = os.path.join(folder, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755 if executable else 0o644)
        try:
            view = memoryview(read_exactly(source, size))
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)


def collect(root: int, patterns: Sequence[str], max_bytes: int) -> list[Found]:
    """The regular files that a path or glob pattern names, in the order of their paths, up to `max_bytes` together.

    `root` is a descriptor of the work folder. Links, devices, pipes and sockets are passed over, as are names that are
    no UTF-8: no path can ask for them.
    """
    found: list[Found] = []
    for path in sorted(_wanted(root, patterns)):
        file = _open(root, path)
        if file is None:
            continue
        if file.size > max_bytes:
            os.close(file.descriptor)
            continue
        max_bytes -= file.size
        found.append(file)
    return found


def weigh(folder: str) -> tuple[float, int]:
    """Bytes on disk and number of files of a folder that a program may be changing meanwhile.

    A file of many names weighs once. Folders too deep to be looked into weigh more than any limit.
    """
    num_bytes, num_files = 0.0, 0
    seen: set[int] = set()
    waiting = [(folder, 0)]
    while waiting:
        path, depth = waiting.pop()
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    num_files += 1
                    with contextlib.suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        if status.st_ino not in seen:
                            num_bytes += status.st_blocks * 512
                        if status.st_nlink > 1:
                            seen.add(status.st_ino)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))
        except OSError:
            continue  # gone, or no folder any more
        if depth > _MAX_DEPTH:
            return math.inf, num_files
    return num_bytes, num_files


def _wanted(root: int, patterns: Sequence[str]) -> set[str]:
    globs = [pattern for pattern in patterns if any(mark in pattern for mark in "*?[")]
    plain = {pattern for pattern in patterns if pattern not in globs and ".." not in pattern.split("/")}
    if not globs:
        return plain
    return plain | {path for path in _walk(root) if any(_matches(path, glob) for glob in globs)}


def _matches(path: str, glob: str) -> bool:
    """True if a path matches: `**` stands for any folders, `*` stays within one."""
    return _parts_match(path.split("/"), glob.split("/"))


def _parts_match(path: list[str], glob: list[str]) -> bool:
    if not glob:
        return not path
    if glob[0] == "**":
        return any(_parts_match(path[start:], glob[1:]) for start in range(len(path) + 1))
    return bool(path) and fnmatch.fnmatchcase(path[0], glob[0]) and _parts_match(path[1:], glob[1:])


def _walk(root: int) -> Iterator[str]:
    waiting = [("", 0)]
    while waiting:
        folder, depth = waiting.pop()
        try:
            descriptor = system.open_beneath(root, os.fsencode(folder or "."), os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue  # the program took its own right to read it
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False) and depth < _MAX_DEPTH:
                        waiting.append((path, depth + 1))
                    elif entry.is_file(follow_symlinks=False) and _is_utf8(path):
                        yield path
        finally:
            os.close(descriptor)


def _open(root: int, path: str) -> Found | None:
    try:
        descriptor = system.open_beneath(root, os.fsencode(path), os.O_RDONLY)
    except OSError:
        return None  # not there, a link, outside, or not readable
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    return Found(path, status.st_size, bool(status.st_mode & stat.S_IXUSR), descriptor)


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
