"""The system calls that Python 3.11 has no function for, and the constants they take.

Every function raises OSError with the kernel's error and the name of what was tried.
"""

from __future__ import annotations

import ctypes
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_NOSUID = 0x2
_MOUNT_ATTR_NODEV = 0x4

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAP_VERSION_3 = 0x20080522

_SECCOMP_SET_MODE_FILTER = 1

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE_IN_ROOT = 0x10

# The same on every architecture since Linux 5.1, but for the older two.
_MACHINE = os.uname().machine
_NR_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_NR_SECCOMP = {"x86_64": 317, "aarch64": 277}
_NR_OPENAT2 = 437
_NR_MOUNT_SETATTR = 442
_NR_LANDLOCK_CREATE_RULESET = 444
_NR_LANDLOCK_ADD_RULE = 445
_NR_LANDLOCK_RESTRICT_SELF = 446

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), what)
    return result


def _syscall(what: str, number: int, *arguments: object) -> int:
    return _check(_libc.syscall(ctypes.c_long(number), *arguments), what)


def unshare(flags: int) -> None:
    """unshare(2): moves this process into new namespaces. OSError."""
    _check(_libc.unshare(ctypes.c_int(flags)), f"unshare {flags:#x}")


def setns(descriptor: int, kind: int) -> None:
    """setns(2): moves this process into a namespace. OSError."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), f"setns {kind:#x}")


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
    """mount(2). OSError."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    data = None if options is None else options.encode()
    _check(_libc.mount(*encoded, ctypes.c_ulong(flags), data), f"mount {source} on {target}")


def make_read_only(target: str, devices: bool = False) -> None:
    """Makes the mount at `target` and all below it read-only, without set-user-id and `devices` (Linux 5.12)."""
    restrictions = _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | (0 if devices else _MOUNT_ATTR_NODEV)
    attributes = struct.pack("=QQQQ", restrictions, 0, 0, 0)
    path, flags = os.fsencode(target), ctypes.c_uint(_AT_RECURSIVE)
    _syscall(
        f"mount_setattr {target}", _NR_MOUNT_SETATTR, ctypes.c_int(-1), path, flags, attributes, ctypes.c_size_t(32)
    )


def unmount(target: str) -> None:
    """umount2(2), lazily. OSError."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(MNT_DETACH)), f"unmount {target}")


def pivot_root(new_root: str) -> None:
    """Makes `new_root`, a mount point, the root, and lets go of the old one."""
    os.chdir(new_root)
    _syscall(f"pivot_root {new_root}", _NR_PIVOT_ROOT[_MACHINE], b".", b".")
    unmount(".")
    os.chdir("/")


def die_with_parent(signum: int) -> None:
    """Has the kernel send this signal when the parent ends."""
    _prctl("parent-death signal", _PR_SET_PDEATHSIG, signum)


def set_dumpable(dumpable: bool) -> None:
    """Sets whether others of the same uid may look into this process (ptrace, /proc/PID/mem)."""
    _prctl("dumpable", _PR_SET_DUMPABLE, int(dumpable))


def become_subreaper() -> None:
    """Orphaned descendants become this process's children."""
    _prctl("subreaper", _PR_SET_CHILD_SUBREAPER, 1)


def set_no_new_privileges() -> None:
    """Forbids this process and its children to gain rights by executing a file."""
    _prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)


def drop_bounding_set() -> None:
    """Gives up, for this process and all it starts, every capability that an exec could ever bring back."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # the kernel's last capability is behind us


def drop_capabilities() -> None:
    """Gives up all capabilities: permitted, effective, inheritable and ambient."""
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)  # kernels that lack it have none
    header = struct.pack("=Ii", _CAP_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def install_seccomp(program: bytes) -> None:
    """Puts this process and all it starts under a classic BPF program of `struct sock_filter`s."""
    code = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    flags = ctypes.c_uint(0)
    _syscall("seccomp", _NR_SECCOMP[_MACHINE], ctypes.c_uint(_SECCOMP_SET_MODE_FILTER), flags, descriptor)


def open_beneath(folder: int, path: bytes, flags: int) -> int:
    """Opens `path` under the folder `folder`, through no symbolic link, never above it and never waiting."""
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    return _open(folder, path, flags, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)


def open_within(folder: int, path: bytes, flags: int) -> int:
    """Opens `path` as if the folder `folder` were the root: links, absolute ones too, lead within it."""
    return _open(folder, path, flags, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)


def _open(folder: int, path: bytes, flags: int, resolution: int) -> int:
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolution)
    return _syscall(f"open {path!r}", _NR_OPENAT2, ctypes.c_int(folder), path, how, ctypes.c_size_t(len(how)))


def landlock_version() -> int:
    """The kernel's Landlock ABI; 0 without Landlock."""
    arguments = (None, ctypes.c_size_t(0), ctypes.c_uint(1))
    return max(0, _libc.syscall(ctypes.c_long(_NR_LANDLOCK_CREATE_RULESET), *arguments))


def landlock_create(ruleset: bytes) -> int:
    """Creates a Landlock ruleset; returns its descriptor. OSError: the kernel has no Landlock."""
    size = ctypes.c_size_t(len(ruleset))
    return _syscall("landlock_create_ruleset", _NR_LANDLOCK_CREATE_RULESET, ruleset, size, ctypes.c_uint(0))


def landlock_allow_beneath(ruleset: int, folder: int, access: int) -> None:
    """Allows these accesses to all that lies in a folder."""
    rule = struct.pack("=Qi", access, folder)
    kind = ctypes.c_int(1)  # LANDLOCK_RULE_PATH_BENEATH
    _syscall("landlock_add_rule", _NR_LANDLOCK_ADD_RULE, ctypes.c_int(ruleset), kind, rule, ctypes.c_uint(0))


def landlock_restrict(ruleset: int) -> None:
    """Restricts this process to the ruleset."""
    _syscall("landlock_restrict_self", _NR_LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))


def _prctl(what: str, option: int, value: int) -> None:
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), 0, 0, 0), f"prctl {what}")


def flush_c_streams() -> None:
    """Writes what a program said through the C library's own streams, by ctypes."""
    _libc.fflush(None)
