"""The warm interpreter as a program's own: it starts as `python` starts, and ends as `python` ends.

What is said and in which order is CPython's: of its main (`Modules/main.c`) and of `Py_FinalizeEx`
(`Python/pylifecycle.c`). `tests/cases/sandbox/endings/` holds programs that are run by both.
"""

from __future__ import annotations

import _io
import _signal  # type: ignore[import-not-found]  # `signal` makes an enum of each number, which costs more than the call
import builtins
import contextlib
import gc
import io
import os
import runpy
import signal
import sys
import threading
import time
import weakref
from _frozen_importlib_external import SourceFileLoader
from atexit import _run_exitfuncs as _run_exit_functions
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from services.sandbox.jail import system

_FLAGS = frozenset(("-I", "-B", "-E", "-s", "-S", "-u", "-P", "-q"))  # of Python, that change nothing here
# Variables that Python reads when it starts, and how this interpreter was started.
_STARTED_WITH = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONIOENCODING": "utf-8:surrogateescape",
    "PYTHONHASHSEED": "0",
}
_FLUSH_FAILED = 120  # CPython's exit code where the output could not be written
# What CPython takes from `sys` before it takes the modules.
_SYS_DELETES = ("path", "path_hooks", "path_importer_cache", "meta_path")
_SYS_DELETES_OF_THE_PROGRAM = ("argv", "ps1", "ps2", "last_type", "last_value", "last_traceback")
_STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")
_display = sys.__excepthook__


# The names that are there before a program, by namespace. Taken once, by the keeper.
_NAMES: dict[str, frozenset[str]] = {}


def remember_names() -> None:
    """Takes down which modules, and names of `sys` and `builtins`, are the interpreter's own."""
    for name, namespace in (("modules", sys.modules), ("sys", vars(sys)), ("builtins", vars(builtins))):
        _NAMES[name] = frozenset(namespace)


def runs_warm(argv: Sequence[str], variables: Mapping[str, str]) -> bool:
    """True if the warm interpreter can be used: for a script, -c or -m, and variables that it was started with."""
    if any(name.startswith("PYTHON") and _STARTED_WITH.get(name) != value for name, value in variables.items()):
        return False
    arguments = _without_flags(argv)
    return bool(arguments) and (
        not arguments[0].startswith("-") or (arguments[0] in ("-c", "-m") and len(arguments) > 1)
    )


def run_warm(argv: Sequence[str], variables: Mapping[str, str]) -> NoReturn:
    """Runs a script as this interpreter's main program, as if the interpreter had just been started for it."""
    _renew(argv, variables)
    _finish(_run_main(_without_flags(argv)))


def _without_flags(argv: Sequence[str]) -> list[str]:
    arguments = list(argv[1:])
    while arguments and arguments[0] in _FLAGS:
        arguments.pop(0)
    return arguments


# --- Its start ----------------------------------------------------------------------------------------------------


def _renew(argv: Sequence[str], variables: Mapping[str, str]) -> None:
    """Makes a forked interpreter look like a new one: its streams, its environment. What the keeper could do for all of
    them is done; here, every object that is touched costs the copy of a page."""
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    os.environ.update(variables)
    if "TZ" in variables:
        time.tzset()
    sys.orig_argv[:] = list(argv)
    unbuffered = "-u" in argv
    sys.stdin = _stream(0, "r", "<stdin>", "surrogateescape", unbuffered)
    sys.stdout = _stream(1, "w", "<stdout>", "surrogateescape", unbuffered)
    sys.stderr = _stream(2, "w", "<stderr>", "backslashreplace", unbuffered, line_buffering=not unbuffered)
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    gc.enable()


def _stream(
    descriptor: int, mode: str, name: str, errors: str, unbuffered: bool, line_buffering: bool = False
) -> io.TextIOWrapper:
    """Makes a stream as `create_stdio` does: lines end with "\\n" alone, and unbuffered output has no buffer at all."""
    raw = io.FileIO(descriptor, mode, closefd=False)
    raw.name = name
    through = unbuffered and mode == "w"
    buffer: Any = raw if through else io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    stream = io.TextIOWrapper(buffer, "utf-8", errors, "\n", line_buffering=line_buffering, write_through=through)
    vars(stream)["mode"] = mode
    return stream


def _run_main(arguments: list[str]) -> int:
    """Runs the program, and gives its exit code; -SIGINT where it leaves an interrupt to the interpreter."""
    main = ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __annotations__={})
    sys.modules["__main__"] = main
    error = _caught(lambda: _execute(main.__dict__, arguments))
    if error is None:
        return 0
    if isinstance(error, SystemExit):
        return _status(error)
    status = _tell(error)
    return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else status


def _execute(main: dict[str, Any], arguments: list[str]) -> None:
    if arguments[0] == "-m":
        sys.argv = ["-m", *arguments[2:]]
        sys.path.insert(0, os.getcwd())
        runpy._run_module_as_main(arguments[1])  # type: ignore[attr-defined]
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path.insert(0, "")
        exec(compile(arguments[1], "<string>", "exec", dont_inherit=True), main)
    else:
        sys.argv, path = arguments, os.path.abspath(arguments[0])
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
        main.update(__file__=path, __cached__=None, __loader__=SourceFileLoader("__main__", path))
        try:
            exec(_read_script(path), main)
        finally:
            for name in ("stderr", "stdout"):
                _caught(partial(_flush, getattr(sys, name, None)))


def _read_script(path: str) -> CodeType:
    with io.open_code(path) as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


# --- Its end ------------------------------------------------------------------------------------------------------


def _status(request: SystemExit) -> int:
    """The exit code that a program asked for; a text is said on stderr, as far as it can be."""
    code = request.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 0xFF
    _caught(lambda: sys.stderr.write(str(code)))
    _caught(lambda: sys.stderr.write("\n"))
    return 1


def _tell(error: BaseException) -> int:
    """Shows an error that nothing caught, by the program's own hook if it has one; its exit code."""
    kind, frames = type(error), _own_frames(error)
    error = error.with_traceback(frames)
    vars(sys).update(last_type=kind, last_value=error, last_traceback=frames)
    hook = getattr(sys, "excepthook", None)
    if hook is None:
        _show("sys.excepthook is missing", error)
        return 1
    second = _caught(lambda: hook(kind, error, frames))
    if isinstance(second, SystemExit):
        return _status(second)
    if second is not None:
        _show("Error in sys.excepthook:", second)
        _show("\nOriginal exception was:", error)
    return 1


def _caught(call: Callable[[], object]) -> BaseException | None:
    """Catches what the call raises, if anything: it runs the program's own code."""
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - it is the program's, and is reported as the interpreter reports it
        return error
    return None


def _own_frames(error: BaseException) -> TracebackType | None:
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return frames


def _show(title: str, error: BaseException, *about: object) -> None:
    frames = _own_frames(error)
    _caught(lambda: sys.stderr.write(" ".join([title, *map(repr, about)]) + "\n"))
    _caught(lambda: _display(type(error), error.with_traceback(frames), frames))


def _finish(status: int) -> NoReturn:
    """Ends as the interpreter ends, in its order: threads, exit functions, streams, the program's objects.

    All else is left to the kernel. Taking the whole interpreter apart would touch, and so copy, every page that it
    shares with the keeper: that costs more than most programs.
    """
    _try(threading, _end_threads)
    _caught(_run_exit_functions)
    if not _flush_streams():
        status = _FLUSH_FAILED
    for step in (gc.collect, _forget, _close_files, system.flush_c_streams):
        _caught(step)  # a program may have left anything in place of what these use
    if status == -signal.SIGINT:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        status = 128 + signal.SIGINT
    os._exit(status)


def _end_threads() -> None:
    threading._shutdown()  # type: ignore[attr-defined]


def _try(what: object, call: Callable[[], object]) -> bool:
    """Calls, and prints an exception as ignored; True if there was none."""
    error = _caught(call)
    if error is not None:
        _show("Exception ignored in:", error, what)
    return error is None


def _flush_streams() -> bool:
    """Flushes the streams, which may be the program's own objects; True if everything was written."""
    flushed = True
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name, None)
        if stream is not None and not _is_closed(stream):
            flushed &= _try(stream, partial(_flush, stream))
    return flushed


def _flush(stream: Any) -> None:
    stream.flush()


def _is_closed(stream: Any) -> bool:
    try:
        return bool(stream.closed)
    except BaseException:  # noqa: BLE001 - the program's own, or one that was detached
        return False


def _forget() -> None:
    """Lets go of the program's modules, so that its objects end while the names that they use are still there."""
    kept = [getattr(sys, name, None) for name in _SYS_DELETES]  # not taken apart: they lie on shared pages
    vars(sys).update(dict.fromkeys((*_SYS_DELETES, *_SYS_DELETES_OF_THE_PROGRAM)))
    vars(sys).update(stdin=sys.__stdin__, stdout=sys.__stdout__, stderr=sys.__stderr__)
    modules = [weakref.ref(module) for module in _programs_modules()]
    gc.collect()
    for module in filter(None, (reference() for reference in reversed(modules))):
        _clear(vars(module), vars(module))
    _clear(vars(sys), [*_STREAMS, *(name for name in vars(sys) if name not in _NAMES["sys"])])
    _clear(vars(builtins), [name for name in vars(builtins) if name not in _NAMES["builtins"]])
    gc.collect()
    del kept


def _programs_modules() -> Iterable[ModuleType]:
    """Those that came after the interpreter's own, taken from `sys.modules` one by one."""
    for name in [name for name in sys.modules if name == "__main__" or name not in _NAMES["modules"]]:
        module = sys.modules.pop(name)
        if isinstance(module, ModuleType):
            yield module


def _clear(namespace: dict[str, Any], names: Iterable[str]) -> None:
    """Sets names to None as CPython clears a module: private ones first, and not what all code needs."""
    ordered = sorted(names, key=lambda name: not (name.startswith("_") and not name.startswith("__")))
    for name in ordered:
        if name != "__builtins__":
            namespace[name] = None


def _close_files() -> None:
    """Closes what is open still, as it is when the last reference to it goes: text first, then what it lies upon."""
    with contextlib.suppress(MemoryError):
        files: list[Any] = [found for found in gc.get_objects() if _io._IOBase in type(found).__mro__]
        for file in sorted(files, key=lambda file: not isinstance(file, io.TextIOWrapper)):
            _caught(file.close)
