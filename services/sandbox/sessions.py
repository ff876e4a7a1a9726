"""Stateful interpreters, each in a jail of its own slot, for as long as somebody uses them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from perilune.errors import InvalidInputError, NotFoundError, OverloadedError, StateError
from services.sandbox import harness
from services.sandbox.builds import Builds
from services.sandbox.job import Conversation, File, Isolation, Jail, JobOutcome, Limits, Output, Verdict
from services.sandbox.languages import language_named

logger = logging.getLogger(__name__)

# After an interrupt, for the interpreter to say so; then it is ended.
_GRACE_S = 2.0
# Of one line: a file comes back as text.
_LINE_BYTES = 128 << 20

OpenJail = Callable[[], AbstractAsyncContextManager[Jail]]


@dataclass(frozen=True)
class Execution:
    """The result of an execution; `alive` is false where the interpreter ended with it."""

    outcome: JobOutcome
    result: str = ""
    alive: bool = True


@dataclass
class _Session:
    id: str
    program: Conversation
    limits: Limits
    isolation: Isolation
    idle_s: float
    resources: AsyncExitStack
    busy: bool = False
    expiry: asyncio.TimerHandle | None = None


class Sessions:
    """All sessions of the service. `open_jail` opens a slot for one more."""

    def __init__(self, open_jail: OpenJail, builds: Builds, max_sessions: int, life_s: float) -> None:
        self._open_jail = open_jail
        self._builds = builds
        self._max_sessions = max_sessions
        self._life_s = life_s
        self._sessions: dict[str, _Session] = {}
        self._num_opening = 0
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    async def create(
        self, language: str, image: str, limits: Limits, idle_s: float, files: Sequence[File]
    ) -> tuple[str, Isolation]:
        """Opens an interpreter; `limits.wall_s` is of one request, the other limits are of the whole session.

        InvalidInputError: the language has none, or there is no such image. OverloadedError: there are enough.
        """
        row = language_named(language)
        if not row.has_sessions:
            raise InvalidInputError(f"{row.name} has no sessions; python has")
        if len(self._sessions) + self._num_opening >= self._max_sessions:
            raise OverloadedError(
                f"there are {self._max_sessions} sessions already; close one, or try again later", 5.0
            )
        self._num_opening += 1
        try:
            session = await self._open(image, limits, idle_s, files)
        finally:
            self._num_opening -= 1
        self._sessions[session.id] = session
        self._expect_use(session)
        return session.id, session.isolation

    async def execute(self, session_id: str, source: str, wall_s: float | None = None) -> Execution:
        """Executes and waits; interrupts after `wall_s`, and ends the session if that does not help."""
        async with self._used(session_id) as session:
            began = time.monotonic()
            request = {"do": "execute", "source": source}
            answer, in_time = await _ask(session, request, session.limits.wall_s if wall_s is None else wall_s)
            if answer is not None:
                with contextlib.suppress(LookupError, TypeError, ValueError):  # the user's code wrote into the channel
                    return Execution(_outcome(answer, in_time, time.monotonic() - began), str(answer["result"]))
            return Execution(await self._bury(session, in_time), alive=False)

    async def put_files(self, session_id: str, files: Sequence[File]) -> None:
        """Writes files. OverloadedError where the work folder is full."""
        async with self._used(session_id) as session:
            answer = await self._ask_or_bury(session, _put(files))
            if answer.get("error"):
                raise OverloadedError(f"the files cannot be written: {answer['error']}")

    async def get_files(self, session_id: str, paths: Sequence[str]) -> list[File]:
        """Reads files. NotFoundError where a path has none."""
        async with self._used(session_id) as session:
            answer = await self._ask_or_bury(session, {"do": "get", "paths": list(paths)})
            if missing := answer.get("missing") or answer.get("error"):
                raise NotFoundError(f"no file {missing} in the session")
            found = answer.get("files", [])
            return [File(str(path), base64.b64decode(content), bool(executable)) for path, content, executable in found]

    async def close(self, session_id: str) -> None:
        """Ends a session with everything in it; one that is gone already is no error."""
        session = self._sessions.pop(session_id, None)
        if session:
            if session.expiry:
                session.expiry.cancel()
            await session.resources.aclose()

    async def close_all(self) -> None:
        """Closes all sessions, and waits for those that are closing."""
        await asyncio.gather(*(self.close(session_id) for session_id in list(self._sessions)), *self._closing)

    async def _open(self, image: str, limits: Limits, idle_s: float, files: Sequence[File]) -> _Session:
        side = harness.session(limits.output_bytes)
        side.program.image = image
        async with AsyncExitStack() as stack:
            jail = await stack.enter_async_context(self._open_jail())
            runnable = await stack.enter_async_context(self._builds.ready(side.program))
            whole = replace(limits, wall_s=self._life_s, output_bytes=_LINE_BYTES)
            job = runnable.job(whole, mounts=side.mounts)
            program = await stack.enter_async_context(jail.open(job))
            session = _Session(uuid4().hex, program, limits, jail.isolation, idle_s, stack)
            answer, _ = await _ask(session, _put(files), limits.wall_s)
            if answer is None or answer.get("error"):
                outcome = await program.end()
                raise OverloadedError(f"the session did not start: {(answer or {}).get('error') or outcome.reason}")
            session.resources = stack.pop_all()
            return session
        raise AssertionError("the stack above swallows nothing")

    @contextlib.asynccontextmanager
    async def _used(self, session_id: str) -> AsyncIterator[_Session]:
        session = self._sessions.get(session_id)
        if session is None:
            raise NotFoundError(f"there is no session {session_id!r}; it was closed, or unused for too long")
        if session.busy:
            raise StateError(f"session {session_id!r} is executing something else; wait for it")
        session.busy = True
        if session.expiry:
            session.expiry.cancel()
        try:
            yield session
        except asyncio.CancelledError:  # the caller left; what it started must not go on
            self._let_go(session)
            raise
        finally:
            session.busy = False
            if session.id in self._sessions:
                self._expect_use(session)

    def _expect_use(self, session: _Session) -> None:
        session.expiry = asyncio.get_running_loop().call_later(session.idle_s, self._let_go, session)

    def _let_go(self, session: _Session) -> None:
        task = asyncio.create_task(self.close(session.id))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _ask_or_bury(self, session: _Session, request: Any) -> dict[str, Any]:
        answer, in_time = await _ask(session, request, session.limits.wall_s)
        if answer is None:
            outcome = await self._bury(session, in_time)
            raise NotFoundError(f"the session has ended ({outcome.verdict.name.lower()}: {outcome.reason})")
        return answer

    async def _bury(self, session: _Session, in_time: bool) -> JobOutcome:
        """The outcome of an interpreter that died; a death without a limit is the work of what it executed."""
        outcome = await session.program.end()
        await self.close(session.id)
        if not in_time:
            reason = "it did not stop when it was interrupted"
            return replace(outcome, verdict=Verdict.TIME_LIMIT, reason=reason)
        if outcome.verdict == Verdict.OK:
            return replace(outcome, verdict=Verdict.RUNTIME_ERROR, reason="the interpreter has ended")
        return outcome


async def _ask(session: _Session, request: Any, wall_s: float) -> tuple[dict[str, Any] | None, bool]:
    """The interpreter's answer, None if it has ended or speaks no sense; and whether it came in time."""
    try:
        await session.program.send(json.dumps(request).encode() + b"\n")
    except BrokenPipeError:
        return None, True
    reading = asyncio.ensure_future(session.program.receive_line())
    try:
        done, _ = await asyncio.wait([reading], timeout=wall_s)
        in_time = bool(done)
        if not done:
            await session.program.interrupt()
            await asyncio.wait([reading], timeout=_GRACE_S)
        if not reading.done():
            return None, False
        answer = json.loads(reading.result() or b"null")
        return (answer if isinstance(answer, dict) else None), in_time
    except (ValueError, RecursionError):  # the user's code wrote into the channel
        return None, True
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def _put(files: Sequence[File]) -> dict[str, Any]:
    coded = [[file.path, base64.b64encode(file.content).decode(), file.executable] for file in files]
    return {"do": "put", "files": coded}


def _outcome(answer: dict[str, Any], in_time: bool, wall_s: float) -> JobOutcome:
    stdout, stderr, error = _output(answer["stdout"]), _output(answer["stderr"]), str(answer["error"])
    verdict, reason = (Verdict.RUNTIME_ERROR, error) if error else (Verdict.OK, "")
    if not in_time:
        verdict, reason = Verdict.TIME_LIMIT, f"interrupted: {error}" if error else "it ended when it was interrupted"
    return JobOutcome(verdict, reason, stdout=stdout, stderr=stderr, wall_s=wall_s)


def _output(coded: dict[str, Any]) -> Output:
    content = base64.b64decode(coded["content"])
    return Output(content, max(len(content), int(coded["num_bytes"])))
