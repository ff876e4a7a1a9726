"""Untrusted programs run and judged by a sandbox service, and interpreters that stay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Self, TypedDict, Unpack

from perilune.api.sandbox.v1.sandbox_pb2 import (
    CloseSessionRequest,
    CreateSessionRequest,
    ExecuteRequest,
    ExecuteResponse,
    File,
    GetFilesRequest,
    GetStatusRequest,
    GetStatusResponse,
    Image,
    JudgeRequest,
    JudgeResponse,
    JudgeSummary,
    Language,
    Limits,
    ListImagesRequest,
    ListLanguagesRequest,
    Output,
    Program,
    PutFilesRequest,
    RunRequest,
    RunResponse,
)
from perilune.api.sandbox.v1.sandbox_pb2_grpc import SandboxServiceStub
from perilune.channel import Credentials
from perilune.client.connection import AsyncConnection, Connection
from perilune.client.messages import as_bytes, message

# Longer than the service's own default for one program with its compiler: the caller's deadline is no verdict.
SANDBOX_DEADLINE_S = 120.0
JUDGE_DEADLINE_S = 600.0

Content = bytes | str
Files = Mapping[str, Content]


class RunOptions(TypedDict, total=False):
    """Optional arguments of a program."""

    stdin: Content  # what it reads
    arguments: Sequence[str]  # of its command line
    files: Files | None  # what lies beside it, contents by path
    environment: Mapping[str, str] | None  # variables besides the sandbox's own
    limits: Limits | None  # unset ones are the service's defaults
    return_files: Sequence[str]  # paths or glob patterns of files to bring back
    image: str  # a name of `SandboxClient.images`, to run it in; the service's own place if not given


class SessionOptions(TypedDict, total=False):
    """Optional arguments of an interpreter."""

    files: Files | None  # what lies in its work folder
    limits: Limits | None  # unset ones are the service's defaults
    idle_s: float | None  # how long it stays with nothing to do
    image: str  # as RunOptions has it


class SandboxClient(Connection):
    """Calls a sandbox: `with SandboxClient("127.0.0.1:7050") as sandbox: sandbox.run("python", "print(6 * 7)")`.

    What a program does is in the answer's verdict. Every method raises UnavailableError if the service does not answer,
    OverloadedError if it is too busy, and InvalidInputError for a language or a limit that it does not have.
    """

    def __init__(
        self, address: str, deadline_s: float = SANDBOX_DEADLINE_S, credentials: Credentials | None = None
    ) -> None:
        """See Connection."""
        super().__init__(address, deadline_s, credentials)
        self._stub = SandboxServiceStub(self._channel)

    def run(self, language: str, source: str, **options: Unpack[RunOptions]) -> RunResponse:
        """Runs a program to its end.

        Args:
            language: a name of `languages`.
            source: the program.
            options: see RunOptions.
        """
        return self._call(self._stub.Run, run_request(language, source, **options))

    def judge(self, request: JudgeRequest, deadline_s: float = JUDGE_DEADLINE_S) -> Iterator[JudgeResponse]:
        """Judges a program: each result as it comes, then the summary. `perilune.grading.codetests` makes requests."""
        return self._stream(self._stub.Judge, request, deadline_s)

    def verdict(self, request: JudgeRequest, deadline_s: float = JUDGE_DEADLINE_S) -> JudgeSummary:
        """Judges a program, and gives the summary alone."""
        return [answer.summary for answer in self.judge(request, deadline_s)][-1]

    def session(self, language: str = "python", **options: Unpack[SessionOptions]) -> SandboxSession:
        """Opens an interpreter that keeps its state; close it, or use it as a context manager."""
        answer = self._call(self._stub.CreateSession, session_request(language, **options))
        return SandboxSession(self, answer.session_id)

    def languages(self, image: str = "") -> Sequence[Language]:
        """The languages of the service, or of an image of it, present or absent."""
        return self._call(self._stub.ListLanguages, message(ListLanguagesRequest, image=image)).languages

    def images(self) -> Sequence[Image]:
        """The images that programs may run in."""
        return self._call(self._stub.ListImages, ListImagesRequest()).images

    def status(self) -> GetStatusResponse:
        """The isolation in force, the limits, and the service's load."""
        return self._call(self._stub.GetStatus, GetStatusRequest())


class SandboxSession:
    """An interpreter in a sandbox. Every method raises NotFoundError once it has ended."""

    def __init__(self, client: SandboxClient, session_id: str) -> None:
        self.id = session_id
        self._client = client

    def execute(self, source: str, wall_s: float | None = None) -> ExecuteResponse:
        """Executes code and waits for it; what it defines stays. After `wall_s` it is interrupted."""
        request = execute_request(self.id, source, wall_s)
        deadline_s = self._client.deadline_s + (wall_s or 0.0)
        return self._client._call(self._client._stub.Execute, request, deadline_s)

    def put(self, files: Files) -> None:
        """Writes files into the work folder."""
        request = message(PutFilesRequest, session_id=self.id, files=write_files(files))
        self._client._call(self._client._stub.PutFiles, request)

    def get(self, *paths: str) -> dict[str, bytes]:
        """Files of the work folder by path or glob pattern. NotFoundError where a path has none."""
        request = message(GetFilesRequest, session_id=self.id, paths=paths)
        return _contents(self._client._call(self._client._stub.GetFiles, request).files)

    def close(self) -> None:
        """Ends the session and its interpreter; closing it twice is harmless."""
        self._client._call(self._client._stub.CloseSession, message(CloseSessionRequest, session_id=self.id))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncSandboxClient(AsyncConnection):
    """SandboxClient for asyncio: `async with AsyncSandboxClient(address) as sandbox: await sandbox.run(...)`."""

    def __init__(
        self, address: str, deadline_s: float = SANDBOX_DEADLINE_S, credentials: Credentials | None = None
    ) -> None:
        """See Connection."""
        super().__init__(address, deadline_s, credentials)
        self._stub = SandboxServiceStub(self._channel)

    async def run(self, language: str, source: str, **options: Unpack[RunOptions]) -> RunResponse:
        """See SandboxClient.run."""
        return await self._call(self._stub.Run, run_request(language, source, **options))

    def judge(self, request: JudgeRequest, deadline_s: float = JUDGE_DEADLINE_S) -> AsyncIterator[JudgeResponse]:
        """See SandboxClient.judge."""
        return self._stream(self._stub.Judge, request, deadline_s)

    async def verdict(self, request: JudgeRequest, deadline_s: float = JUDGE_DEADLINE_S) -> JudgeSummary:
        """See SandboxClient.verdict."""
        return [answer.summary async for answer in self.judge(request, deadline_s)][-1]

    async def session(self, language: str = "python", **options: Unpack[SessionOptions]) -> AsyncSandboxSession:
        """See SandboxClient.session."""
        answer = await self._call(self._stub.CreateSession, session_request(language, **options))
        return AsyncSandboxSession(self, answer.session_id)

    async def languages(self, image: str = "") -> Sequence[Language]:
        """See SandboxClient.languages."""
        return (await self._call(self._stub.ListLanguages, message(ListLanguagesRequest, image=image))).languages

    async def images(self) -> Sequence[Image]:
        """See SandboxClient.images."""
        return (await self._call(self._stub.ListImages, ListImagesRequest())).images

    async def status(self) -> GetStatusResponse:
        """See SandboxClient.status."""
        return await self._call(self._stub.GetStatus, GetStatusRequest())


class AsyncSandboxSession:
    """SandboxSession for asyncio."""

    def __init__(self, client: AsyncSandboxClient, session_id: str) -> None:
        self.id = session_id
        self._client = client

    async def execute(self, source: str, wall_s: float | None = None) -> ExecuteResponse:
        """See SandboxSession.execute."""
        request = execute_request(self.id, source, wall_s)
        deadline_s = self._client.deadline_s + (wall_s or 0.0)
        return await self._client._call(self._client._stub.Execute, request, deadline_s)

    async def put(self, files: Files) -> None:
        """See SandboxSession.put."""
        request = message(PutFilesRequest, session_id=self.id, files=write_files(files))
        await self._client._call(self._client._stub.PutFiles, request)

    async def get(self, *paths: str) -> dict[str, bytes]:
        """See SandboxSession.get."""
        request = message(GetFilesRequest, session_id=self.id, paths=paths)
        return _contents((await self._client._call(self._client._stub.GetFiles, request)).files)

    async def close(self) -> None:
        """Ends the session and its interpreter; closing it twice is harmless."""
        await self._client._call(self._client._stub.CloseSession, message(CloseSessionRequest, session_id=self.id))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def run_request(
    language: str,
    source: str,
    stdin: Content = b"",
    arguments: Sequence[str] = (),
    files: Files | None = None,
    environment: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    return_files: Sequence[str] = (),
    image: str = "",
) -> RunRequest:
    """The request that `run` sends."""
    return message(
        RunRequest,
        program=message(Program, language=language, source=source, files=write_files(files or {}), image=image),
        stdin=as_bytes("stdin", stdin),
        arguments=arguments,
        environment=environment,
        limits=limits,
        return_files=return_files,
    )


def session_request(
    language: str,
    files: Files | None = None,
    limits: Limits | None = None,
    idle_s: float | None = None,
    image: str = "",
) -> CreateSessionRequest:
    """The request that `session` sends."""
    given = write_files(files or {})
    return message(CreateSessionRequest, language=language, files=given, limits=limits, idle_s=idle_s, image=image)


def execute_request(session_id: str, source: str, wall_s: float | None) -> ExecuteRequest:
    """The request that `execute` sends."""
    return message(ExecuteRequest, session_id=session_id, source=source, wall_s=wall_s)


def write_files(files: Files) -> list[File]:
    """Files as the API has them."""
    return [message(File, path=path, content=as_bytes(f"files[{path!r}]", content)) for path, content in files.items()]


def text(output: Output) -> str:
    """Decodes a stream as text: `text(answer.execution.stdout)`. Bytes that are no UTF-8 become U+FFFD."""
    return output.content.decode("utf-8", "replace")


def _contents(files: Sequence[File]) -> dict[str, bytes]:
    return {file.path: file.content for file in files}
