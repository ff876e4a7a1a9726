"""The file system of one job: an empty root with what the language needs, read-only, and one bounded place to write.

Built by the program's process, while it still may, in a mount namespace of its own, so that it vanishes with the job.
Work folder, /tmp and /dev/shm are folders of one tmpfs: one size and one number of files bound them together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from services.sandbox.jail import system

WORK = "/box"
NEW_ROOT = "/sys"  # a folder of every host that no job is shown; covered in the job's own mount namespace alone
_SCRATCH = "/run"  # the bounded tmpfs while its folders are being put into place
WRITABLE = {"work": WORK, "tmp": "/tmp", "shm": "/dev/shm"}
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
    disk_bytes: int,
    num_files: int,
    uid: int,
    gid: int,
) -> None:
    """Makes the job's root at NEW_ROOT. OSError: the host does not let us, or a mount's folder is missing."""
    system.mount("root", NEW_ROOT, "tmpfs", system.MS_NOSUID | system.MS_NODEV, "mode=0755,size=1m,nr_inodes=4096")
    root = NEW_ROOT
    _show_host(root, [path for path in readable if os.path.lexists(path)])
    for inside, outside in mounts.items():
        _bind(os.path.realpath(outside), root + inside)
    _make_devices(root)
    _write_etc(root, uid, gid)
    _make_writable(root, disk_bytes, num_files, uid, gid)


def enter_root() -> None:
    """Makes what was built the root, read-only; nothing else stays in sight."""
    _mount_proc(NEW_ROOT)
    system.pivot_root(NEW_ROOT)
    system.mount(None, "/", None, system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | system.MS_NOSUID)


def _show_host(root: str, paths: Iterable[str]) -> None:
    """Shows host paths where they lie: links as links, with what they lead to."""
    real = sorted({os.path.realpath(path) for path in paths})
    shown: list[str] = []
    for path in real:
        if not any(path == above or path.startswith(f"{above}/") for above in shown):
            _bind(path, root + path)
            shown.append(path)
    for path in sorted(set(paths)):
        if os.path.islink(path) and not os.path.lexists(root + path):
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            os.symlink(os.readlink(path), root + path)


def _bind(source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        _touch(target)
    system.mount(source, target, None, system.MS_BIND | system.MS_REC)
    system.make_read_only(target)


def _touch(path: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def _make_devices(root: str) -> None:
    for name in _DEVICES:
        _touch(f"{root}/dev/{name}")
        system.mount(f"/dev/{name}", f"{root}/dev/{name}", None, system.MS_BIND)
        system.make_read_only(f"{root}/dev/{name}", devices=True)  # of the file; what it leads to can be written
    for name, target in _LINKS.items():
        os.symlink(target, f"{root}/dev/{name}")


def _mount_proc(root: str) -> None:
    """Shows the job's own processes alone. In a user namespace this needs the host's /proc in sight, and uncovered."""
    os.mkdir(f"{root}/proc")
    flags = system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC
    system.mount("proc", f"{root}/proc", "proc", flags, "subset=pid,hidepid=invisible")


def _write_etc(root: str, uid: int, gid: int) -> None:
    os.makedirs(f"{root}/etc", exist_ok=True)
    for name, text in _ETC.items():
        with open(f"{root}/etc/{name}", "w", encoding="ascii") as file:
            file.write(text.format(uid=uid, gid=gid))


def _make_writable(root: str, disk_bytes: int, num_files: int, uid: int, gid: int) -> None:
    scratch = root + _SCRATCH
    os.makedirs(scratch, exist_ok=True)
    inodes = num_files + 1 + len(WRITABLE)
    options = f"mode=0755,size={disk_bytes},nr_inodes={inodes}"
    system.mount("work", scratch, "tmpfs", system.MS_NOSUID | system.MS_NODEV, options)
    for name, target in WRITABLE.items():
        os.mkdir(f"{scratch}/{name}", 0o700)
        os.chown(f"{scratch}/{name}", uid, gid)
        os.makedirs(root + target, exist_ok=True)
        system.mount(f"{scratch}/{name}", root + target, None, system.MS_BIND)
    system.unmount(scratch)
