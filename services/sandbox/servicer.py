"""SandboxService: requests read, checked, and answered from a pool of jails."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc

from perilune.api.sandbox.v1 import sandbox_pb2 as api
from perilune.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceServicer
from perilune.errors import InvalidInputError, OverloadedError, UnavailableError
from perilune.runtime.service import rpc_errors
from perilune.runtime.telemetry import meter
from services.sandbox.builds import Builds
from services.sandbox.config import SandboxSettings
from services.sandbox.jail.pool import Pool
from services.sandbox.jail.slot import KeeperError
from services.sandbox.job import BusyError, Limits, Verdict
from services.sandbox.judge import Judge, compile_verdict, tests_of
from services.sandbox.languages import LANGUAGES, Absent, Toolchains
from services.sandbox.languages.language import COMPILE_LIMITS, Toolchain
from services.sandbox.messages import (
    check_path,
    read_files,
    read_limits,
    wider,
    write_execution,
    write_files,
    write_image,
    write_isolation,
    write_limits,
)
from services.sandbox.sessions import Sessions

_jobs = meter.create_counter("perilune.sandbox.verdicts", description="Programs and cases, by verdict")


class SandboxServicer(SandboxServiceServicer):
    """SandboxService, as the proto documents it."""

    def __init__(self, settings: SandboxSettings, pool: Pool, builds: Builds, sessions: Sessions) -> None:
        self._settings = settings
        self._pool = pool
        self._builds = builds
        self._sessions = sessions
        self._default = Limits()
        self._largest = wider(self._default, _largest(settings))
        self._judge = Judge(pool, builds, self._default, self._largest, pool.num_slots)
        self._num_verdicts: Counter[str] = Counter()

    async def Run(
        self, request: api.RunRequest, context: grpc.aio.ServicerContext[api.RunRequest, api.RunResponse]
    ) -> api.RunResponse:
        """Compiles and runs a program once."""
        async with _errors(context):
            limits = read_limits(request.limits, self._default, self._largest)
            compile_limits = read_limits(request.compile_limits, COMPILE_LIMITS, wider(COMPILE_LIMITS, self._largest))
            _check_strings(request)
            async with self._builds.ready(request.program, compile_limits) as runnable:
                answer = api.RunResponse(isolation=write_isolation(self._pool.isolation))
                if runnable.compilation:
                    answer.compilation.CopyFrom(write_execution(runnable.compilation))
                    answer.verdict = compile_verdict(runnable.compilation).value
                if runnable.compiles:
                    job = runnable.job(
                        limits,
                        request.stdin,
                        request.arguments,
                        request.environment,
                        return_files=[check_path(path) for path in request.return_files],
                    )
                    began = time.monotonic()
                    outcome = await self._pool.run(job)
                    answer.waited_s = max(0.0, time.monotonic() - began - outcome.wall_s)
                    answer.execution.CopyFrom(write_execution(outcome))
                    answer.verdict = outcome.verdict.value
            self._count(answer.verdict)
            return answer

    async def Judge(
        self, request: api.JudgeRequest, context: grpc.aio.ServicerContext[api.JudgeRequest, api.JudgeResponse]
    ) -> AsyncIterator[api.JudgeResponse]:
        """Streams the verdict on each case, then the summary."""
        async with _errors(context), contextlib.aclosing(self._judge.judge(request)) as answers:
            async for answer in answers:
                self._count(answer.result.verdict or answer.summary.verdict)
                yield answer

    async def CreateSession(
        self,
        request: api.CreateSessionRequest,
        context: grpc.aio.ServicerContext[api.CreateSessionRequest, api.CreateSessionResponse],
    ) -> api.CreateSessionResponse:
        """Opens an interpreter that keeps its state between executions."""
        async with _errors(context):
            whole = replace(self._default, cpu_s=self._settings.session_cpu_s)
            limits = read_limits(request.limits, whole, wider(whole, self._largest))
            idle_s = request.idle_s if request.HasField("idle_s") else self._settings.session_idle_s
            if not 0 < idle_s <= self._settings.session_life_s:
                raise InvalidInputError(
                    f"idle_s: more than 0 and {self._settings.session_life_s:g} at most, not {idle_s}"
                )
            session_id, isolation = await self._sessions.create(
                request.language, request.image, limits, idle_s, read_files(request.files)
            )
            return api.CreateSessionResponse(session_id=session_id, isolation=write_isolation(isolation))

    async def Execute(
        self, request: api.ExecuteRequest, context: grpc.aio.ServicerContext[api.ExecuteRequest, api.ExecuteResponse]
    ) -> api.ExecuteResponse:
        """Executes source in a session."""
        async with _errors(context):
            wall_s = request.wall_s if request.HasField("wall_s") else None
            if wall_s is not None and not 0 < wall_s <= self._largest.wall_s:
                raise InvalidInputError(f"wall_s: more than 0 and {self._largest.wall_s:g} at most, not {wall_s}")
            done = await self._sessions.execute(request.session_id, request.source, wall_s)
            self._count(done.outcome.verdict.value)
            return api.ExecuteResponse(execution=write_execution(done.outcome), result=done.result, alive=done.alive)

    async def PutFiles(
        self, request: api.PutFilesRequest, context: grpc.aio.ServicerContext[api.PutFilesRequest, api.PutFilesResponse]
    ) -> api.PutFilesResponse:
        """Writes files into a session's work folder."""
        async with _errors(context):
            await self._sessions.put_files(request.session_id, read_files(request.files))
            return api.PutFilesResponse()

    async def GetFiles(
        self, request: api.GetFilesRequest, context: grpc.aio.ServicerContext[api.GetFilesRequest, api.GetFilesResponse]
    ) -> api.GetFilesResponse:
        """Reads files from a session's work folder."""
        async with _errors(context):
            paths = [check_path(path) for path in request.paths]
            return api.GetFilesResponse(files=write_files(await self._sessions.get_files(request.session_id, paths)))

    async def CloseSession(
        self,
        request: api.CloseSessionRequest,
        context: grpc.aio.ServicerContext[api.CloseSessionRequest, api.CloseSessionResponse],
    ) -> api.CloseSessionResponse:
        """Ends a session; an unknown one is no error."""
        await self._sessions.close(request.session_id)
        return api.CloseSessionResponse()

    async def ListLanguages(
        self,
        request: api.ListLanguagesRequest,
        context: grpc.aio.ServicerContext[api.ListLanguagesRequest, api.ListLanguagesResponse],
    ) -> api.ListLanguagesResponse:
        """Lists languages, with what this machine or an image has of them."""
        async with _errors(context):
            image, own = request.image, self._builds.toolchains
            toolchains = await self._builds.images.toolchains(image) if image else own
            return api.ListLanguagesResponse(languages=list_languages(toolchains))

    async def ListImages(
        self,
        request: api.ListImagesRequest,
        context: grpc.aio.ServicerContext[api.ListImagesRequest, api.ListImagesResponse],
    ) -> api.ListImagesResponse:
        """Lists the stored images."""
        images = self._builds.images.list()
        return api.ListImagesResponse(images=[write_image(image) for image in images])

    async def GetStatus(
        self,
        request: api.GetStatusRequest,
        context: grpc.aio.ServicerContext[api.GetStatusRequest, api.GetStatusResponse],
    ) -> api.GetStatusResponse:
        """Reports isolation, limits and load."""
        return api.GetStatusResponse(
            isolation=write_isolation(self._pool.isolation),
            unavailable_levels=self._pool.unavailable_levels,
            default_limits=write_limits(self._default),
            max_limits=write_limits(self._largest),
            num_slots=self._pool.num_slots,
            num_busy=self._pool.num_busy,
            num_waiting=self._pool.num_waiting,
            num_sessions=len(self._sessions),
            num_jobs=self._num_verdicts.total(),
            num_verdicts=self._num_verdicts,
        )

    def _count(self, verdict: int) -> None:
        name = Verdict(verdict).name
        self._num_verdicts[name] += 1
        _jobs.add(1, {"verdict": name})


def list_languages(toolchains: Toolchains) -> list[api.Language]:
    """The rows of the table, with what this machine or an image has of them."""
    rows = []
    for language in LANGUAGES.values():
        found = toolchains.found[language.name]
        rows.append(
            api.Language(
                name=language.name,
                aliases=language.aliases,
                available=isinstance(found, Toolchain),
                version=found.version if isinstance(found, Toolchain) else "",
                reason=found.reason if isinstance(found, Absent) else "",
                extension=language.extension,
                compiled=language.build is not None,
                has_sessions=language.has_sessions,
                tests=tests_of(language.name),
            )
        )
    return rows


def _largest(settings: SandboxSettings) -> Limits:
    disk_bytes = settings.max_disk_mb << 20
    return Limits(
        cpu_s=settings.max_cpu_s,
        wall_s=settings.max_wall_s,
        memory_bytes=settings.max_memory_mb << 20,
        num_processes=settings.max_processes,
        output_bytes=settings.max_output_mb << 20,
        file_bytes=disk_bytes,
        num_files=settings.max_files,
        disk_bytes=disk_bytes,
    )


def _check_strings(request: api.RunRequest) -> None:
    """Checks the arguments and environment of a process. InvalidInputError."""
    for text in (*request.arguments, *request.environment, *request.environment.values()):
        if "\0" in text:
            raise InvalidInputError("arguments and environment cannot hold a NUL character")
    for name in request.environment:
        if not name or "=" in name:
            raise InvalidInputError(f"{name!r} is no name of an environment variable")


@contextlib.asynccontextmanager
async def _errors(context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
    async with rpc_errors(context):
        try:
            yield
        except BusyError as busy:
            raise OverloadedError(str(busy), busy.retry_after_s) from busy
        except KeeperError as error:
            raise UnavailableError(f"the sandbox has failed; try again: {error}") from error
