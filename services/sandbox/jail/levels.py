"""The strongest isolation that the host allows, found by starting a keeper under each level and running a program."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from perilune.errors import MissingDependencyError
from services.sandbox.config import JailSettings
from services.sandbox.jail import gvisor
from services.sandbox.jail.cgroups import CgroupMaker, CgroupUnavailableError, find_cgroups
from services.sandbox.jail.pool import Pool
from services.sandbox.jail.program import GVISOR, LANDLOCK, NAMESPACES, RLIMITS, USER_NAMESPACES, WITH_MOUNTS
from services.sandbox.jail.protocol import SlotConfig
from services.sandbox.jail.slot import KeeperError, Slot, base_python
from services.sandbox.job import Isolation, Job, JobOutcome, Verdict
from services.sandbox.languages.language import SYSTEM

logger = logging.getLogger(__name__)

_SECCOMP = ("seccomp", "no-new-privileges", "rlimits")
_MOUNTS = ("pid", "mount", "network", "ipc", "uts", "read-only-root", "tmpfs", "no-capabilities", *_SECCOMP)
# Strongest first, with the mechanisms that each is made of; cgroups come on top where they are.
LEVELS = {
    GVISOR: ("gvisor-systrap", *(name for name in _MOUNTS if name != "seccomp"), "uid"),
    NAMESPACES: (*_MOUNTS, "uid"),
    USER_NAMESPACES: ("user", *_MOUNTS),
    LANDLOCK: ("landlock", "uid", *_SECCOMP),
    RLIMITS: ("rlimits", "no-new-privileges"),
}
_NEEDS_ROOT = (GVISOR, NAMESPACES, LANDLOCK)


class LevelUnavailableError(Exception):
    """A level is not available here; the message says what is missing."""


async def open_pool(settings: JailSettings) -> Pool:
    """Slots under the strongest accepted level that this host allows.

    MissingDependencyError: none of the accepted levels is available; the message says why, level by level.
    """
    unavailable: dict[str, str] = {}
    for level in LEVELS:
        if level not in settings.levels:
            unavailable[level] = "not among the accepted levels (PERILUNE_SANDBOX_LEVELS)"
            continue
        try:
            return await _open_level(level, settings, unavailable)
        except LevelUnavailableError as error:
            unavailable[level] = str(error)
    reasons = "; ".join(f"{level}: {reason}" for level, reason in unavailable.items())
    raise MissingDependencyError(
        f"no accepted isolation is available here. {reasons}. Give the service the rights that docs/sandbox.md names, "
        "or accept a weaker level by its name in PERILUNE_SANDBOX_LEVELS"
    )


async def _open_level(level: str, settings: JailSettings, unavailable: dict[str, str]) -> Pool:
    if level in _NEEDS_ROOT and os.getuid() != 0:
        raise LevelUnavailableError("needs root, for uids of its own")
    async with contextlib.AsyncExitStack() as resources:
        slots, mechanisms = await _start_slots(level, settings, resources)
        isolation = Isolation(level, mechanisms)
        return Pool(isolation, unavailable, slots, settings.max_waiting, resources.pop_all())
    raise AssertionError("the stack above swallows nothing")


async def _start_slots(
    level: str, settings: JailSettings, resources: contextlib.AsyncExitStack
) -> tuple[Sequence[Slot], Sequence[str]]:
    """Starts one slot and tries it, then the others; `resources` closes them."""
    maker, mechanisms = _cgroups(level)
    runsc = ""
    if level == GVISOR:
        runsc, maker = _find_runsc(settings), _fair_maker(maker)
    scratch = resources.enter_context(_scratch_folder(level, settings))
    uids = resources.enter_context(_own_uids(settings))
    slots: list[Slot] = []
    for index in range(settings.num_slots):
        config = SlotConfig(
            level, uids[index], uids[index] if os.getuid() == 0 else os.getgid(), scratch, maker is not None, runsc
        )
        slot = Slot(config, settings.python or base_python(), maker.make() if maker else None)
        resources.push_async_callback(slot.close)
        slots.append(slot)
    try:
        await slots[0].start()
        await _try(slots[0], settings.python or base_python())
        if isinstance(maker, gvisor.FairMaker):
            maker.overhead = await _weigh(slots[0])
        await asyncio.gather(*(slot.start() for slot in slots[1:]))
    except KeeperError as error:
        raise LevelUnavailableError(str(error)) from error
    return slots, mechanisms


def _cgroups(level: str) -> tuple[CgroupMaker | None, Sequence[str]]:
    try:
        maker = find_cgroups()
    except CgroupUnavailableError as error:
        logger.warning("no control groups: memory and processes are counted by looking at them (%s)", error)
        return None, LEVELS[level]
    return maker, (*LEVELS[level], maker.name)


def _find_runsc(settings: JailSettings) -> str:
    runsc = settings.runsc or shutil.which("runsc")
    if runsc is None or not os.access(runsc, os.X_OK):
        where = settings.runsc or "on the PATH"
        raise LevelUnavailableError(f"no runsc {where}; install gVisor, or name it in PERILUNE_SANDBOX_RUNSC")
    return os.path.realpath(runsc)


def _fair_maker(maker: CgroupMaker | None) -> gvisor.FairMaker:
    if maker is None:
        raise LevelUnavailableError("needs control groups: nothing else sees what its programs use")
    return gvisor.FairMaker(maker)


async def _try(slot: Slot, python: Path) -> None:
    """Runs a program in the slot. LevelUnavailableError: it does not come out as it should."""
    source = "import plistlib\nprint(6 * 7)"  # a module that is not warm: the library must be in reach
    job = Job([str(python), "-c", source], readable=(*slot.interpreter_folders, *SYSTEM), warm="python")
    outcome = await _carry_out(slot, job)
    if outcome.verdict is not Verdict.OK or outcome.stdout.content != b"42\n":
        raise LevelUnavailableError(f"a trial program came out as {outcome}")


async def _weigh(slot: Slot) -> gvisor.Overhead:
    """Measures a job whose program does nothing."""
    outcome = await _carry_out(slot, Job(["true"], readable=SYSTEM))
    if outcome.verdict is not Verdict.OK:
        raise LevelUnavailableError(f"a program that does nothing came out as {outcome}")
    return gvisor.Overhead(outcome.cpu_s, outcome.peak_memory_bytes)


async def _carry_out(slot: Slot, job: Job) -> JobOutcome:
    run = await slot.begin(job, live=False)
    outcome = await run.outcome()
    await slot.clear()
    return outcome


@contextlib.contextmanager
def _scratch_folder(level: str, settings: JailSettings) -> Iterator[str]:
    if level in WITH_MOUNTS:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="perilune-sandbox-", dir=settings.scratch or "/dev/shm") as folder:
        os.chmod(folder, 0o711)  # the programs pass through it to their own folders
        yield folder


@contextlib.contextmanager
def _own_uids(settings: JailSettings) -> Iterator[Sequence[int]]:
    """A uid for each slot that no other sandbox on this machine uses: ending a job may mean ending a uid's processes.

    Held by binding an abstract socket of that name, which the kernel lets go when we end. Without root, our own.
    """
    if os.getuid() != 0:
        yield [os.getuid()] * settings.num_slots
        return
    with contextlib.ExitStack() as locks:
        uids: list[int] = []
        candidate = settings.first_uid
        while len(uids) < settings.num_slots:
            lock = socket.socket(socket.AF_UNIX)
            try:
                lock.bind(f"\0perilune-sandbox-uid-{candidate}")
            except OSError:
                lock.close()
            else:
                locks.enter_context(lock)
                uids.append(candidate)
            candidate += 1
        yield uids
