"""The file system of one job: an empty root with what the language needs, read-only, or an image; and one bounded place
to write.

Built by the program's process, while it still may, in a mount namespace of its own, so that it vanishes with the job.
Work folder, /tmp, /dev/shm and what is written over an image are folders of one tmpfs: one size and one number of files
bound them together.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from services.sandbox.jail import system

WORK = "/box"
NEW_ROOT = "/sys"  # a folder of every host that no job is shown; covered in the job's own mount namespace alone
_SCRATCH = "/run"  # the bounded tmpfs while its folders are being put into place
WRITABLE = {"work": WORK, "tmp": "/tmp", "shm": "/dev/shm"}
_UPPER = ("upper", "overlay")  # beside them, where there is an image: what is written over it, and the kernel's own
_SPARE_FILES = 1 + len(WRITABLE) + len(_UPPER) + 1  # ours, in the bounded place
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
_ETC = {
    "passwd": "root:x:0:0:root:/:/bin/false\nsandbox:x:{uid}:{gid}:sandbox:/box:/bin/sh\n",
    "group": "root:x:0:\nsandbox:x:{gid}:\n",
    "hosts": "127.0.0.1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


def build_root(
    readable: Sequence[str],
    mounts: Mapping[str, str],
    image: str,
    disk_bytes: int,
    num_files: int,
    uid: int,
    gid: int,
) -> None:
    """Makes the job's root at NEW_ROOT. OSError: the host does not let us, or a mount's folder is missing.

    It holds what is `readable` of the host or, if its folder is named, an image; and in either `mounts`, by the place
    inside.
    """
    root = NEW_ROOT
    system.mount("root", root, "tmpfs", system.MS_NOSUID | system.MS_NODEV, "mode=0755,size=1m,nr_inodes=4096")
    shown = {root + inside: os.path.realpath(outside) for inside, outside in mounts.items()}
    _make_places(root, shown)
    _write_etc(root, uid, gid)
    with _bounded(root, disk_bytes, num_files, uid, gid) as scratch:
        if image:
            _lay_over(root, image, scratch)
        else:
            _show_host(root, [path for path in readable if os.path.lexists(path)])
        for target, source in shown.items():
            _bind(source, target)
        _show_devices(root)
        _show_writable(root, scratch)


def build_room(readable: Sequence[str], mounts: Mapping[str, str], uid: int, gid: int) -> None:
    """Makes and enters the same without an image, and without a place to write: what jobs can share."""
    root = NEW_ROOT
    system.mount("root", root, "tmpfs", system.MS_NOSUID | system.MS_NODEV, "mode=0755,size=1m,nr_inodes=4096")
    shown = {root + inside: os.path.realpath(outside) for inside, outside in mounts.items()}
    _make_places(root, shown)
    _write_etc(root, uid, gid)
    _show_host(root, [path for path in readable if os.path.lexists(path)])
    for target, source in shown.items():
        _bind(source, target)
    _show_devices(root)
    enter_root(read_only=True)


def furnish_room(disk_bytes: int, num_files: int, uid: int, gid: int) -> None:
    """Makes the one place to write for a job in a room, in a mount namespace of the job's own."""
    with _bounded("", disk_bytes, num_files, uid, gid) as scratch:
        _show_writable("", scratch)


def enter_root(read_only: bool) -> None:
    """Makes what was built the root; nothing else stays in sight."""
    flags = system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC
    # In a user namespace this needs the host's /proc in sight, and uncovered. It shows the job's own processes alone.
    system.mount("proc", f"{NEW_ROOT}/proc", "proc", flags, "subset=pid,hidepid=invisible")
    system.pivot_root(NEW_ROOT)
    if read_only:
        system.mount(None, "/", None, system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | system.MS_NOSUID)


def _make_places(root: str, shown: Mapping[str, str]) -> None:
    """Something to mount on, for all that will be. Of an image they are the top layer: its links lead nowhere else."""
    for folder in ("/proc", _SCRATCH, *WRITABLE.values()):
        os.makedirs(root + folder)
    for target, source in shown.items():
        _make_place(target, source)
    for name in _DEVICES:
        _touch(f"{root}/dev/{name}")
    for name, target in _LINKS.items():
        os.symlink(target, f"{root}/dev/{name}")


def _show_devices(root: str) -> None:
    for name in _DEVICES:  # the file is read-only; what it leads to can be written
        system.mount(f"/dev/{name}", f"{root}/dev/{name}", None, system.MS_BIND)
        system.make_read_only(f"{root}/dev/{name}", devices=True)


def _show_writable(root: str, scratch: str) -> None:
    for name, target in WRITABLE.items():
        system.mount(f"{scratch}/{name}", root + target, None, system.MS_BIND)


@contextlib.contextmanager
def _bounded(root: str, disk_bytes: int, num_files: int, uid: int, gid: int) -> Iterator[str]:
    """The one place of fixed size, with its folders; a path to it that stays good when the root is covered."""
    folder = root + _SCRATCH
    options = f"mode=0755,size={disk_bytes},nr_inodes={num_files + _SPARE_FILES}"
    system.mount("work", folder, "tmpfs", system.MS_NOSUID | system.MS_NODEV, options)
    for name in WRITABLE:
        os.mkdir(f"{folder}/{name}", 0o700)
        os.chown(f"{folder}/{name}", uid, gid)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
        system.unmount(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _lay_over(root: str, image: str, scratch: str) -> None:
    """Covers the root with the image below it; what the program writes there goes into the bounded place."""
    for name in _UPPER:
        os.mkdir(f"{scratch}/{name}", 0o755)
    # By descriptor: a path may hold what the options are separated by, and the job can read the options.
    below = os.open(image, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    upper, work = (f"{scratch}/{name}" for name in _UPPER)
    options = f"lowerdir={root}:/proc/self/fd/{below},upperdir={upper},workdir={work}"
    if os.getuid():  # in a user namespace
        options += ",userxattr"
    system.mount("image", root, "overlay", system.MS_NOSUID | system.MS_NODEV, options)
    os.close(below)


def _show_host(root: str, paths: Iterable[str]) -> None:
    """Shows host paths where they lie: links as links, with what they lead to."""
    real = sorted({os.path.realpath(path) for path in paths})
    shown: list[str] = []
    for path in real:
        if not any(path == above or path.startswith(f"{above}/") for above in shown):
            _make_place(root + path, path)
            _bind(path, root + path)
            shown.append(path)
    for path in sorted(set(paths)):
        if os.path.islink(path) and not os.path.lexists(root + path):
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            os.symlink(os.readlink(path), root + path)


def _make_place(target: str, source: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        _touch(target)


def _bind(source: str, target: str) -> None:
    system.mount(source, target, None, system.MS_BIND | system.MS_REC)
    system.make_read_only(target)


def _touch(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def _write_etc(root: str, uid: int, gid: int) -> None:
    os.makedirs(f"{root}/etc", exist_ok=True)
    for name, text in _ETC.items():
        with open(f"{root}/etc/{name}", "w", encoding="ascii") as file:
            file.write(text.format(uid=uid, gid=gid))
