"""The process that stands in a slot: it makes the slot's namespaces once, keeps an interpreter warm, and carries out
one order after the other, as the first process of the slot's process namespace. It never reads an order: each program
is a fork of this process and must find nothing of another in it.

Run by `slot` as `python -c "…" PLACE SOCKET`. It waits for one byte before it starts (the service has put it into its
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
from services.sandbox.jail.protocol import NEXT, Place, Terms, decode_terms
from services.sandbox.jail.standby import Room, Understudy, prepare
from services.sandbox.jail.supervisor import Channels, carry_out

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
    become = _serve(Place(**json.loads(sys.argv[1])), socket.socket(fileno=int(sys.argv[2])))
    if become:  # from here on the stack holds nothing of ours
        become()


def _serve(place: Place, orders: socket.socket) -> Callable[[], None] | None:
    system.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not orders.recv(1):
        return None
    try:
        _enter(place)
        _warm_up()
        wake = _wake_at_childrens_ends()
        room = Room()
        understudy = prepare(place, room, None)
    except OSError as error:
        orders.send(json.dumps({"failure": str(error)}).encode())
        return None
    if isinstance(understudy, Understudy):
        orders.send(json.dumps({"folders": [sys.prefix, sys.base_prefix]}).encode())
        return _take_orders(place, orders, wake, room, understudy)
    return understudy


def _enter(place: Place) -> None:
    """Makes the slot's own namespaces; goes on as the first process of a process namespace, where there is one."""
    if place.level == program.USER_NAMESPACES:
        _enter_user_namespace(place)
    if place.has_mounts:
        kinds = (system.CLONE_NEWNS, system.CLONE_NEWPID, system.CLONE_NEWNET, system.CLONE_NEWIPC, system.CLONE_NEWUTS)
        for kind in kinds:
            system.unshare(kind)
        _go_on_in_child()
        system.mount(None, "/", None, system.MS_REC | system.MS_PRIVATE)
        system.mount("proc", "/proc", "proc", system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC)
        socket.sethostname("sandbox")
        if place.level != program.GVISOR:  # runsc makes namespaces of its own
            system.drop_bounding_set()
    else:
        system.become_subreaper()
    system.set_dumpable(False)
    with contextlib.suppress(PermissionError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("-1000")


def _enter_user_namespace(place: Place) -> None:
    """One uid, the slot's own: as the host's uid 0, no limit on processes would hold."""
    if os.getuid() != place.uid:
        os.setgroups([])
        os.setresgid(place.gid, place.gid, place.gid)
        os.setresuid(place.uid, place.uid, place.uid)
        system.set_dumpable(True)
    system.unshare(system.CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{place.uid} {place.uid} 1"),
        ("gid_map", f"{place.gid} {place.gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _go_on_in_child() -> None:
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


def _take_orders(
    place: Place, orders: socket.socket, wake: int, room: Room, first: Understudy
) -> Callable[[], None] | None:
    """Carries out one order after the other until the service is gone. Returns in a program's process alone."""
    understudy: Understudy | Callable[[], None] = first
    last: Terms | None = None
    is_usual = False  # the last job saw the same of the host as the one before it
    while isinstance(understudy, Understudy):
        message, descriptors = _receive(orders)
        if not message:
            os._exit(0)
        if message == NEXT:
            if last and is_usual and _may_share(place, last) and not room.fits(last):
                room.build(place, last)
            understudy = prepare(place, room, last if last and room.fits(last) else None)
            if isinstance(understudy, Understudy):
                orders.send(b"{}")
            continue
        terms = decode_terms(message)
        if not understudy.fits(terms, room):
            understudy.dismiss()
            understudy = prepare(place, room, None)
        if isinstance(understudy, Understudy):
            carry_out(place, terms, Channels(*descriptors), wake, understudy)
            is_usual, last = last is not None and last.root == terms.root, terms
    return understudy


def _may_share(place: Place, terms: Terms) -> bool:
    """Whether jobs can share a room: gVisor's sentry takes no entered root, and an image is written over."""
    return place.level in (program.NAMESPACES, program.USER_NAMESPACES) and not terms.root.image


def _receive(orders: socket.socket) -> tuple[bytes, list[int]]:
    try:
        message, descriptors, _, _ = socket.recv_fds(orders, 1 << 18, len(fields(Channels)))
    except ConnectionError:  # the service ended with something unread
        return b"", []
    return message, descriptors
