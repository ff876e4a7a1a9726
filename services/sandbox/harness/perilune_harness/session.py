"""A stateful Python interpreter: executes one piece of source after another in the same module.

What an execution prints goes to two unlinked files, by descriptor, so that child processes are heard too; they are as
large as the job's file limit allows, and are read, cut and emptied after each execution.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import fcntl
import glob
import linecache
import os
import signal
import sys
import tempfile
import traceback
import types
from typing import Any

from .wire import Channel

MAX_RESULT_CHARS = 100_000


class Recorder:
    """One stream of what is printed."""

    def __init__(self, descriptor: int, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        with tempfile.TemporaryFile() as file:
            self._file = os.dup(file.fileno())
        # Appending, so that what a child writes after we emptied the file does not leave a hole.
        fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_APPEND)
        os.dup2(self._file, descriptor)

    def take(self) -> dict[str, Any]:
        """Gives what was written since the last time, with its full size."""
        size = os.fstat(self._file).st_size
        content = os.pread(self._file, self._limit_bytes, 0)
        os.ftruncate(self._file, 0)
        return {"content": base64.b64encode(content).decode(), "num_bytes": size}


class Session:
    """An interpreter whose names live from one execution to the next."""

    def __init__(self, channel: Channel, output_bytes: int) -> None:
        self.channel = channel
        self.module = types.ModuleType("__main__")
        sys.modules["__main__"] = self.module
        self.stdout, self.stderr = Recorder(1, output_bytes), Recorder(2, output_bytes)
        self.num_executed = 0

    def serve(self) -> None:
        """Answers requests until the channel is closed."""
        while True:
            message = self.channel.receive()
            do: Any = {"execute": self.execute, "put": self.put, "get": self.get}[message.pop("do")]
            self.channel.send(do(**message))

    def execute(self, source: str) -> dict[str, Any]:
        """Runs the source; the value of a last expression is the result, as text."""
        self.num_executed += 1
        name = f"<cell {self.num_executed}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        result, error = "", ""
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            result = self.run(source, name)
        except BaseException as raised:  # noqa: BLE001 whatever the user's code raises is text for the user
            error = tell(raised, name)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the user closed it, or its file is full
                stream.flush()
        return {"result": result, "error": error, "stdout": self.stdout.take(), "stderr": self.stderr.take()}

    def run(self, source: str, name: str) -> str:
        """Executes the source; gives the last expression's value as text."""
        tree = ast.parse(source, name)
        last: ast.Expression | None = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
        namespace = self.module.__dict__
        exec(compile(tree, name, "exec"), namespace)
        if last is None:
            return ""
        value = eval(compile(last, name, "eval"), namespace)
        if value is None:
            return ""
        namespace["_"] = value
        return repr(value)[:MAX_RESULT_CHARS]

    def put(self, files: list[tuple[str, str, bool]]) -> dict[str, Any]:
        """Writes files, whose contents come in base64."""
        try:
            for path, content, executable in files:
                os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
                with open(path, "wb") as file:
                    file.write(base64.b64decode(content))
                os.chmod(path, 0o755 if executable else 0o644)
        except OSError as error:
            return {"error": f"{error.filename}: {error.strerror}"}
        return {}

    def get(self, paths: list[str]) -> dict[str, Any]:
        """Files by path or pattern; `missing` where a path has none."""
        files = []
        for pattern in paths:
            found = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
            if not found and not glob.has_magic(pattern):
                return {"missing": pattern}
            for path in found:
                try:
                    with open(path, "rb") as file:
                        content = base64.b64encode(file.read()).decode()
                except OSError as error:
                    return {"error": f"{path}: {error.strerror}"}
                files.append([path, content, os.access(path, os.X_OK)])
        return {"files": files}


def tell(error: BaseException, name: str) -> str:
    """Prints the traceback from the user's code on, as an interpreter does; gives its last line."""
    frames = error.__traceback__
    while frames and frames.tb_frame.f_code.co_filename != name:
        frames = frames.tb_next
    try:
        traceback.print_exception(type(error), error, frames)
        return traceback.format_exception_only(type(error), error)[-1].strip()[:2000]
    except Exception:  # noqa: BLE001 the user's own __str__, or a stream that is full or closed
        return type(error).__name__


def main(output_bytes: int) -> None:
    """Serves until the channel is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Session(Channel(), output_bytes).serve()
