"""What a forked child does to become the program: bounded, stripped of every right, and then either a fresh
executable or the warm interpreter that it already is.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes an enum of each number, which costs more than the call
import atexit
import builtins
import gc
import io
import math
import os
import resource
import runpy
import signal
import sys
import threading
from collections.abc import Sequence
from types import CodeType, ModuleType
from typing import NoReturn

from services.sandbox.jail import files, landlock, system
from services.sandbox.jail.mounts import WORK
from services.sandbox.jail.order import Order, Place, Terms
from services.sandbox.jail.seccomp import build_filter

GVISOR, NAMESPACES, USER_NAMESPACES = "gvisor", "namespaces", "user-namespaces"
LANDLOCK, RLIMITS = "landlock", "rlimits"
WITH_MOUNTS = (GVISOR, NAMESPACES, USER_NAMESPACES)

_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "USER": "sandbox",
    "LOGNAME": "sandbox",
}
MAX_OPEN_FILES = 512
STACK_BYTES = 64 << 20
_FLAGS = frozenset(("-I", "-B", "-E", "-s", "-S", "-u", "-P", "-q"))  # of Python, that change nothing here


def prepare(order: Order, terms: Terms, source: int, place: Place, work: str) -> None:
    """Takes everything from this process that a program must not have. OSError: the host does not let us.

    What is left is an unprivileged process in the work folder, with its files laid, under its limits.
    """
    _bound(terms, place)
    if place.level != USER_NAMESPACES and place.uid != os.getuid():
        os.setgroups([])
        os.setresgid(place.gid, place.gid, place.gid)
        os.setresuid(place.uid, place.uid, place.uid)
    os.umask(0o022)
    os.chdir(work)
    files.lay(order.files, source, work)
    os.close(source)
    system.set_no_new_privileges()
    if place.has_mounts:
        system.drop_capabilities()
    if place.level == LANDLOCK:
        devices = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
        shown = (*terms.root.readable, *terms.root.mounts.values(), *devices)
        landlock.confine(shown, (work, "/dev/null"))
    if place.level != RLIMITS:
        system.install_seccomp(_FILTERS[place.level][place.has_cgroup])
    system.set_dumpable(True)


# A memory file is memory that only a cgroup counts. Without a network namespace of its own, a socket could reach what
# listens on the host by path or abstract name; socketpair stays.
_FILTERS = {
    level: {
        has_cgroup: build_filter(
            without=[
                *(() if has_cgroup else ("memfd_create",)),
                *(() if level in WITH_MOUNTS else ("socket",)),
            ]
        )
        for has_cgroup in (False, True)
    }
    for level in (NAMESPACES, USER_NAMESPACES, LANDLOCK)
}


def environment(order: Order, work: str) -> dict[str, str]:
    folders = {"HOME": work, "PWD": work, "TMPDIR": "/tmp" if work == WORK else work}
    return _ENVIRONMENT | folders | dict(order.environment)


def execute(argv: Sequence[str], variables: dict[str, str]) -> NoReturn:
    """Becomes the executable; 127 and 126 with a line on stderr where there is none, as a shell says it."""
    for signum in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT):
        _signal.signal(signum, _signal.SIG_DFL)
    try:
        os.execvpe(argv[0], list(argv), variables)
    except (OSError, ValueError) as error:
        os.write(2, f"{argv[0]}: {error}\n".encode("utf-8", "replace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def runs_warm(argv: Sequence[str]) -> bool:
    """Whether the warm interpreter can stand in for these arguments: a script, -c or -m."""
    arguments = _without_flags(argv)
    return bool(arguments) and (
        not arguments[0].startswith("-") or (arguments[0] in ("-c", "-m") and len(arguments) > 1)
    )


def run_warm(argv: Sequence[str], variables: dict[str, str]) -> NoReturn:
    """Runs a script as this interpreter's main program, as if the interpreter had just been started for it."""
    arguments = _without_flags(argv)
    _renew(argv, variables)
    main = ModuleType("__main__")
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = main
    try:
        _run_main(main, arguments)
        status = 0
    except SystemExit as request:
        status = _status(request)
    except BaseException as error:  # noqa: BLE001 - it is the program's, and is told as the interpreter tells it
        status = _tell(error)
    _finish(main, status)


def _run_main(main: ModuleType, arguments: list[str]) -> None:
    if arguments[0] == "-m":
        sys.argv = ["-m", *arguments[2:]]
        sys.path.insert(0, os.getcwd())
        runpy._run_module_as_main(arguments[1])  # type: ignore[attr-defined]
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path.insert(0, "")
        exec(compile(arguments[1], "<string>", "exec", dont_inherit=True), main.__dict__)
    else:
        sys.argv, path = arguments, os.path.abspath(arguments[0])
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
        main.__dict__["__file__"] = path
        exec(_read_script(path), main.__dict__)


def _read_script(path: str) -> CodeType:
    with io.open_code(path) as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def _status(request: SystemExit) -> int:
    if request.code is None:
        return 0
    if isinstance(request.code, int):
        return request.code & 0xFF
    print(request.code, file=sys.stderr)
    return 1


def _tell(error: BaseException) -> int:
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    sys.excepthook(type(error), error.with_traceback(frames), frames)
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def _finish(main: ModuleType, status: int) -> NoReturn:
    """Ends as the interpreter ends, in its order: threads, exit functions, the program's own objects, its streams.

    All else is left to the kernel. Taking the whole interpreter apart would touch, and so copy, every page that it
    shares with the keeper: that costs more than most programs.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        main.__dict__.clear()
        gc.collect()
    except BaseException as error:  # noqa: BLE001 - the program's again
        status = _tell(error)
    for stream in (getattr(sys, "stdout", None), getattr(sys, "stderr", None)):
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except Exception:  # noqa: BLE001 - nobody reads it, or it is the program's own
            status = 120
    os._exit(status)


def _without_flags(argv: Sequence[str]) -> list[str]:
    arguments = list(argv[1:])
    while arguments and arguments[0] in _FLAGS:
        arguments.pop(0)
    return arguments


def _renew(argv: Sequence[str], variables: dict[str, str]) -> None:
    """Makes a forked interpreter look like a new one: its streams, its environment. What the keeper could do for all of
    them is done; here, every object that is touched costs the copy of a page."""
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    os.environ.update(variables)
    sys.orig_argv[:] = list(argv)
    sys.stdin = _stream(0, "r", "<stdin>", "surrogateescape")
    sys.stdout = _stream(1, "w", "<stdout>", "surrogateescape", unbuffered="-u" in argv)
    sys.stderr = _stream(2, "w", "<stderr>", "backslashreplace", unbuffered=True)
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    gc.enable()


def _stream(descriptor: int, mode: str, name: str, errors: str, unbuffered: bool = False) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, mode, closefd=False)
    raw.name = name
    buffer = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    stream = io.TextIOWrapper(buffer, "utf-8", errors, line_buffering=unbuffered, write_through=unbuffered)
    vars(stream)["mode"] = mode
    return stream


def _bound(terms: Terms, place: Place) -> None:
    cpu_s = math.ceil(terms.cpu_s) + 1  # the tree's time is judged more finely; this stops a process that escaped it
    limits = {
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 1),
        resource.RLIMIT_FSIZE: (terms.file_bytes, terms.file_bytes),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (MAX_OPEN_FILES, MAX_OPEN_FILES),
        resource.RLIMIT_MEMLOCK: (64 << 10, 64 << 10),
        resource.RLIMIT_MSGQUEUE: (0, 0),
        resource.RLIMIT_RTPRIO: (0, 0),
        resource.RLIMIT_NICE: (0, 0),
        resource.RLIMIT_SIGPENDING: (1024, 1024),
    }
    if place.level != RLIMITS:
        # A cgroup that counts comes first. Without one, the process beyond the limit starts, and is seen and stopped;
        # a user namespace's count holds the keeper and its parent too.
        spare = 16 if place.has_cgroup else 1
        num_processes = terms.num_processes + spare + (2 if place.level == USER_NAMESPACES else 0)
        limits[resource.RLIMIT_NPROC] = (num_processes, num_processes)
    stack = STACK_BYTES if place.has_cgroup else 8 << 20
    limits[resource.RLIMIT_STACK] = (stack, stack)
    if not place.has_cgroup:
        data = terms.memory_bytes * 2 + (1 << 30)
        limits[resource.RLIMIT_DATA] = (data, data)
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(
            kind, limit if hard == resource.RLIM_INFINITY else (min(limit[0], hard), min(limit[1], hard))
        )
