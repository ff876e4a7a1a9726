"""The process that stands in a slot: it makes the slot's namespaces once, keeps an interpreter warm, and carries out
one job after the other, as the first process of the slot's process namespace. It never reads a request: each program
is a fork of this process and must find nothing of another in it.

Run by `slot` as `python -c "…" CONFIG SOCKET`. It waits for one byte before it starts (the service has put it into its
cgroup by then), then takes two messages a job: the job's terms with its descriptors and, when the job has been charged,
the word to prepare for another, which it answers once nothing of the job is left and the next program stands ready.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import fields
from types import ModuleType

from services.sandbox.jail import interpreter, program, system
from services.sandbox.jail.protocol import NEXT, SlotConfig, Terms, decode_terms
from services.sandbox.jail.standby import Room, StandbyProgram, prepare
from services.sandbox.jail.supervisor import Channels, run_job

_WARM_MODULES = (
    *("abc", "argparse", "array", "ast", "base64", "bisect", "calendar", "cmath", "collections", "copy"),
    *("csv", "ctypes", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq"),
    *("inspect", "io", "itertools", "json", "linecache", "math", "numbers", "operator", "os", "pathlib", "pickle"),
    *("queue", "random", "re", "shutil", "signal", "statistics", "string", "struct", "subprocess", "sys", "tempfile"),
    *("textwrap", "threading", "time", "timeit", "traceback", "types", "typing", "unittest", "uuid", "warnings"),
)


_OURS: list[ModuleType] = []  # modules that programs are not to find, but that we live by


def main() -> None:
    """The keeper's life. Where this process has become a program, it runs it and ends as that program ends."""
    become = _serve(SlotConfig(**json.loads(sys.argv[1])), socket.socket(fileno=int(sys.argv[2])))
    if become:  # from here on the stack holds nothing of ours
        become()


def _serve(config: SlotConfig, requests: socket.socket) -> Callable[[], None] | None:
    system.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not requests.recv(1):
        return None
    try:
        _enter(config)
        _warm_up()
        wake = _wake_at_childrens_ends()
        room = Room()
        standby = prepare(config, room, None)
    except OSError as error:
        requests.send(json.dumps({"failure": str(error)}).encode())
        return None
    if isinstance(standby, StandbyProgram):
        requests.send(json.dumps({"folders": [sys.prefix, sys.base_prefix]}).encode())
        return _serve_jobs(config, requests, wake, room, standby)
    return standby


def _enter(config: SlotConfig) -> None:
    """Makes the slot's own namespaces; goes on as the first process of a process namespace, where there is one."""
    if config.level == program.USER_NAMESPACES:
        _enter_user_namespace(config)
    if config.has_mounts:
        kinds = (system.CLONE_NEWNS, system.CLONE_NEWPID, system.CLONE_NEWNET, system.CLONE_NEWIPC, system.CLONE_NEWUTS)
        for kind in kinds:
            system.unshare(kind)
        _continue_in_child()
        system.mount(None, "/", None, system.MS_REC | system.MS_PRIVATE)
        system.mount("proc", "/proc", "proc", system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC)
        socket.sethostname("sandbox")
        if config.level != program.GVISOR:  # runsc makes namespaces of its own
            system.drop_bounding_set()
    else:
        system.become_subreaper()
    system.set_dumpable(False)
    with contextlib.suppress(PermissionError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("-1000")


def _enter_user_namespace(config: SlotConfig) -> None:
    """One uid, the slot's own: as the host's uid 0, no limit on processes would hold."""
    if os.getuid() != config.uid:
        os.setgroups([])
        os.setresgid(config.gid, config.gid, config.gid)
        os.setresuid(config.uid, config.uid, config.uid)
        system.set_dumpable(True)
    system.unshare(system.CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{config.uid} {config.uid} 1"),
        ("gid_map", f"{config.gid} {config.gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _continue_in_child() -> None:
    """Lives on in the new process namespace; what is left outside only waits."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        os._exit(0)
    system.die_with_parent(signal.SIGKILL)


def _warm_up() -> None:
    """Imports what programs use, forgets what is ours, and leaves all objects where they are."""
    for name in _WARM_MODULES:
        importlib.import_module(name)
    os.environ.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "services"]:
        _OURS.append(sys.modules.pop(name))
    interpreter.remember_names()
    gc.disable()
    gc.collect()
    gc.freeze()


def _wake_at_childrens_ends() -> int:
    """A descriptor that becomes readable when a child ends."""
    wake, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    return wake


def _serve_jobs(
    config: SlotConfig, requests: socket.socket, wake: int, room: Room, first: StandbyProgram
) -> Callable[[], None] | None:
    """Runs one job after the other until the service is gone. Returns only in a program's process."""
    standby: StandbyProgram | Callable[[], None] = first
    last: Terms | None = None
    is_usual = False  # the last job saw the same of the host as the one before it
    while isinstance(standby, StandbyProgram):
        message, descriptors = _receive(requests)
        if not message:
            os._exit(0)
        if message == NEXT:
            if last and is_usual and _may_share(config, last) and not room.fits(last):
                room.build(config, last)
            standby = prepare(config, room, last if last and room.fits(last) else None)
            if isinstance(standby, StandbyProgram):
                requests.send(b"{}")
            continue
        terms = decode_terms(message)
        if not standby.fits(terms, room):
            standby.dismiss()
            standby = prepare(config, room, None)
        if isinstance(standby, StandbyProgram):
            run_job(config, terms, Channels(*descriptors), wake, standby)
            is_usual, last = last is not None and last.root == terms.root, terms
    return standby


def _may_share(config: SlotConfig, terms: Terms) -> bool:
    """True if jobs can share a room: gVisor's sentry takes no entered root, and an image is written over."""
    return config.level in (program.NAMESPACES, program.USER_NAMESPACES) and not terms.root.image


def _receive(requests: socket.socket) -> tuple[bytes, list[int]]:
    try:
        message, descriptors, _, _ = socket.recv_fds(requests, 1 << 18, len(fields(Channels)))
    except ConnectionError:  # the service ended with something unread
        return b"", []
    return message, descriptors
